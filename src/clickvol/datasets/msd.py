"""Folders in the layout of the Medical Segmentation Decathlon, as a list of cases."""

import json
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.volumes.volume import Modality


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One labelled scan.

    Attributes:
        case_id: file name without suffix, "sts_001".
        modality: what the folder holds.
        image, label: the two files, on one grid; label voxels above 0 are the object.
    """

    case_id: str
    modality: Modality
    image: Path
    label: Path

    def belongs_to(self, patients: tuple[str, ...]) -> bool:
        """Tell whether the case is of one of these patients (the part after the last underscore)."""
        return self.case_id.rsplit("_", maxsplit=1)[-1] in patients


def list_msd_cases(folder: Path, modality: Modality) -> list[CaseRecord]:
    """Return the training cases of an MSD folder in the order of its dataset.json.

    Raises:
        ConfigError: when the folder or its dataset.json is missing, has another form, or names files
            that are not there.
    """
    index = folder / "dataset.json"
    if not index.is_file():
        msg = (
            f"{folder} is not an MSD folder: dataset.json is missing; set data.root to where it is"
        )
        raise ConfigError(msg)
    cases = []
    for image_name, label_name in _read_pairs(index):
        image, label = folder / image_name, folder / label_name
        if not image.is_file() or not label.is_file():
            msg = f"{index} names {image_name}, but the image or its label is missing"
            raise ConfigError(msg)
        cases.append(CaseRecord(image.name.removesuffix(".nii.gz"), modality, image, label))
    return cases


def _read_pairs(index: Path) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(index.read_text(encoding="utf-8"))["training"]
        return [(str(pair["image"]), str(pair["label"])) for pair in pairs]
    except (ValueError, TypeError, KeyError) as error:
        msg = (
            f'{index} is not the index of an MSD folder, which is {{"training": [{{"image": "...", '
            f'"label": "..."}}, ...]}}: {error!r}'
        )
        raise ConfigError(msg) from error

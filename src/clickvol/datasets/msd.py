"""Folders in the layout of the Medical Segmentation Decathlon, as a list of cases."""

import json
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.io.volume import Modality


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


@dataclass(frozen=True, slots=True)
class MsdIndex:
    """What a dataset.json says.

    Attributes:
        name: of the data set; "" where it has none.
        channels: what the volumes of an image are, "CT"; empty where it does not say.
        labels: names of the label values above 0; empty where it does not say.
        pairs: image and label of the training cases, relative to the folder.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[int, str]
    pairs: tuple[tuple[str, str], ...]


def list_msd_cases(folder: Path, modality: Modality) -> list[CaseRecord]:
    """Return the training cases of an MSD folder in the order of its dataset.json.

    Raises:
        ConfigError: when the folder or its dataset.json is missing, has another form, or names files
            that are not there.
    """
    cases = []
    for image_name, label_name in read_msd_index(folder).pairs:
        image, label = folder / image_name, folder / label_name
        # A folder is a DICOM series.
        if not image.exists() or not label.exists():
            raise ConfigError(
                f"{folder / 'dataset.json'} names {image_name}, but the image or its label is missing"
            )
        cases.append(CaseRecord(msd_case_id(image), modality, image, label))
    return cases


def msd_case_id(image: Path) -> str:
    """Return what a case of an MSD folder is called."""
    return image.name.removesuffix(".nii.gz")


def read_msd_index(folder: Path) -> MsdIndex:
    """Read the dataset.json of an MSD folder.

    Raises:
        ConfigError: when it is missing or has another form.
    """
    index = folder / "dataset.json"
    if not index.is_file():
        raise ConfigError(
            f"{folder} is not an MSD folder: dataset.json is missing; give the folder where it is"
        )
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        pairs = tuple((str(p["image"]), str(p["label"])) for p in content["training"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f'{index} is not the index of an MSD folder, which is {{"training": [{{"image": "...", '
            f'"label": "..."}}, ...]}}: {error!r}'
        ) from error
    labels = _numbered(content.get("labels"))
    return MsdIndex(
        name=str(content.get("name", "")),
        channels=tuple(name for _, name in sorted(_numbered(content.get("modality")).items())),
        labels={value: name for value, name in labels.items() if value > 0},
        pairs=pairs,
    )


def _numbered(names: object) -> dict[int, str]:
    """Return {0: "CT"} of {"0": "CT"}; nothing of what has another form, which only explains."""
    if not isinstance(names, dict):
        return {}
    return {int(key): str(name) for key, name in names.items() if str(key).isdecimal()}

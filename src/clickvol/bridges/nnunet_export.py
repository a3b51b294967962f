"""A prepared data set in the folders and files that nnU-Net reads."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clickvol.datasets.prepared import LabelledCase, PreparedSet
from clickvol.errors import ConfigError
from clickvol.files.atomic import link_or_copy, write_text
from clickvol.io.formats import write_mask
from clickvol.io.volume import Mask

DATASET_ID = 501
"""nnU-Net's number of the data set: any free one, and every run has folders of its own."""

_CHANNEL_NAMES = {"CT": "CT", "MR": "MRI", "PT": "PET", "other": "other"}
"""nnU-Net clips and normalises a channel called CT by the set's HU, any other by each scan's own values."""

_SUFFIX = ".nii.gz"


@dataclass(frozen=True, kw_only=True)
class NnunetDataset:
    """A data set as nnU-Net has it.

    Attributes:
        folder: its folder in nnUNet_raw; `imagesTr`, `labelsTr` and `imagesTs` lie in it.
        splits: one fold, for nnU-Net's splits_final.json.
        test_ids: the scans of imagesTs.
    """

    name: str
    folder: Path
    splits: list[dict[str, list[str]]]
    test_ids: tuple[str, ...]


def export_dataset(
    prepared: PreparedSet,
    raw_folder: Path,
    *,
    fold: int,
    on_case: Callable[[str], None] = lambda _case_id: None,
) -> NnunetDataset:
    """Write the scans of one fold for nnU-Net; an export that is complete stays.

    The training and the validation part become imagesTr and labelsTr, and the test part imagesTs: its labels
    are not exported, so that nnU-Net cannot see them. The scans are those that came, not the resampled ones,
    because resampling is part of what nnU-Net plans; they are hard-linked where that can be. dataset.json comes
    last and shows that all is there. nnU-Net knows the fold as its only one, 0.

    Raises:
        ConfigError: for a set of several modalities, without a training, validation or test part, or whose
            files are gone or have changed.
        OutputError: when a file cannot be written.
    """
    parts = {
        "train": prepared.part("train", fold=fold),
        "val": prepared.part("val", fold=fold),
        "test": prepared.part("test", fold=fold),
    }
    channel = _channel_name(prepared, parts)
    name = f"Dataset{DATASET_ID}_{re.sub(r'[^A-Za-z0-9]+', '', prepared.name) or 'clickvol'}"
    dataset = NnunetDataset(
        name=name,
        folder=raw_folder / name,
        splits=[{part: [case.case_id for case in parts[part]] for part in ("train", "val")}],
        test_ids=tuple(case.case_id for case in parts["test"]),
    )
    index = dataset.folder / "dataset.json"
    if index.is_file():
        return dataset
    _write_scans(parts, dataset.folder, on_case)
    content = {
        "name": prepared.name,
        "channel_names": {"0": channel},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": len(parts["train"]) + len(parts["val"]),
        "file_ending": _SUFFIX,
    }
    write_text(index, json.dumps(content, indent=2) + "\n")
    return dataset


def _channel_name(prepared: PreparedSet, parts: dict[str, list[LabelledCase]]) -> str:
    empty = [name for name, cases in parts.items() if not cases]
    if empty:
        raise ConfigError(
            f"the part {empty[0]!r} of {prepared.name} is empty, but nnU-Net needs scans in train, val "
            "and test; prepare the data with other splits"
        )
    modalities = sorted({case.modality for cases in parts.values() for case in cases})
    if len(modalities) > 1:
        raise ConfigError(
            f"{prepared.name} mixes {' and '.join(modalities)}, but nnU-Net normalises one modality; "
            "prepare one set for each"
        )
    return _CHANNEL_NAMES[modalities[0]]


def _write_scans(parts: dict[str, list[LabelledCase]], folder: Path, on_case: Callable[[str], None]) -> None:
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for part, cases in parts.items():
        images = folder / ("imagesTs" if part == "test" else "imagesTr")
        for case in cases:
            on_case(case.case_id)
            volume, label = case.read_native()
            link_or_copy(Path(volume.source), images / f"{case.case_id}_0000{_SUFFIX}")
            if part != "test":
                mask = Mask(array=label, grid=volume.grid)
                write_mask(mask, folder / "labelsTr" / f"{case.case_id}{_SUFFIX}")

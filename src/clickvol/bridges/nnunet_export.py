"""A prepared data set in the folders and files that nnU-Net reads."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clickvol.datasets.prepared import PreparedCase, PreparedSet, read_native_case
from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.io.formats import write_mask, write_volume
from clickvol.io.volume import Mask, Volume

DATASET_ID = 501
"""nnU-Net's number of the data set: any free one, and every run has folders of its own."""

_CHANNEL_NAMES = {"CT": "CT", "MR": "MRI"}
"""nnU-Net clips and normalises a channel called CT by the set's HU, any other by each scan's own values."""

_SUFFIX = ".nii.gz"

_STORED_DTYPES = (np.int16, np.float32, np.float64)
"""The first that holds every value of a scan's own is what it is written as."""


@dataclass(frozen=True, kw_only=True)
class NnunetDataset:
    """A data set as nnU-Net has it.

    Attributes:
        name: "Dataset501_Sarcoma".
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

    The training and the validation part become imagesTr and labelsTr, and the test part imagesTs: its
    labels are not exported, so that nnU-Net cannot see them. The scans are those of the source, not
    the resampled ones, because resampling is part of what nnU-Net plans. A compressed NIfTI file is
    hard-linked, everything else written anew. dataset.json comes last and shows that all is there.

    Args:
        prepared: a data set of one modality.
        raw_folder: what nnU-Net calls nnUNet_raw; exists.
        fold: of the prepared set. nnU-Net knows it as its fold 0, the only one.
        on_case: gets the id of each scan before it is written.

    Returns:
        What was written.

    Raises:
        ConfigError: for a set of several modalities, without a training, validation or test part, or
            whose source files are gone or have changed.
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
        splits=[{part: [case.id for case in parts[part]] for part in ("train", "val")}],
        test_ids=tuple(case.id for case in parts["test"]),
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
    with atomic_path(index, ".json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return dataset


def _channel_name(prepared: PreparedSet, parts: dict[str, list[PreparedCase]]) -> str:
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


def _write_scans(parts: dict[str, list[PreparedCase]], folder: Path, on_case: Callable[[str], None]) -> None:
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for case in (*parts["train"], *parts["val"]):
        on_case(case.id)
        volume, label = read_native_case(case)
        _place_image(case, volume, folder / "imagesTr")
        mask = Mask(array=label, grid=volume.grid)
        write_mask(mask, folder / "labelsTr" / f"{case.id}{_SUFFIX}")
    for case in parts["test"]:
        on_case(case.id)
        volume, _ = read_native_case(case)
        _place_image(case, volume, folder / "imagesTs")


def _place_image(case: PreparedCase, volume: Volume, folder: Path) -> None:
    target = folder / f"{case.id}_0000{_SUFFIX}"
    # What was repaired while reading (NaN, a broken header) must not come back through the link.
    as_it_is = not volume.notes and case.volume_index is None
    if as_it_is and volume.source.lower().endswith(_SUFFIX):
        with contextlib.suppress(OSError):  # another file system, or one without links
            target.unlink(missing_ok=True)
            os.link(os.path.realpath(volume.source), target)
            return
    dtype = next(d for d in _STORED_DTYPES if np.can_cast(volume.array.dtype, d))
    write_volume(volume.array.astype(dtype, copy=False), volume.grid, target)

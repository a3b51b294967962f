"""Labelled scans to evaluate on, from the folders of a command line."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.msd import list_msd_cases, read_msd_index
from clickvol.datasets.prepared import (
    PreparedCase,
    file_state,
    is_prepared_set,
    object_mask,
    read_native_case,
    read_pair,
    read_prepared_set,
)
from clickvol.errors import ConfigError
from clickvol.evaluation.cvpr2025 import list_challenge_cases
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Modality, Volume
from clickvol.preprocessing.channels import organ_of_label

WHOLE_SET = "all"
"""The part of a data set that has all of its cases; the only one of a set without splits."""

OrganMaskChoice = Literal["none", "gt"]
"""What is shown to contestants that look at an organ mask.

none: nothing; the scan stands in its place, as in the released test code of TAGS. gt: every labelled voxel,
organ and tumour together. That is an oracle: no user has it, and where the tumour's outline is the organ's it
gives it away.
"""

LabelledScan = tuple[Volume, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationCase:
    """One labelled scan.

    Attributes:
        case_id: unique in its data set.
        group: the patient.
        modality: what the scan is.
        read: reads the scan and its mask (D, H, W) uint8, 0 or 1, on the native grid.
        read_organ: reads organ and tumour as one such mask; None where the labels have one value for all.
    """

    case_id: str
    group: str
    modality: Modality
    read: Callable[[], LabelledScan]
    read_organ: Callable[[], NDArray[np.uint8]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationData:
    """A data set, or a part of one.

    Attributes:
        name: in the report.
        content_hash: another one means other data.
        cases: in order.
    """

    name: str
    content_hash: str
    cases: tuple[EvaluationCase, ...]


def open_data(
    words: Sequence[str], *, split: str, fold: int = 0, limit: int | None = None
) -> list[EvaluationData]:
    """Return the data sets that words name.

    Args:
        words: folders: of `clickvol data prepare`, in MSD layout, or with .npz files of the CVPR 2025
            interactive challenge; with NAME= before one to call it so in the report.
        split: which part: "train", "val", "test" or "all". A folder that was not prepared has no parts but
            "all".
        fold: of the splits.
        limit: take only so many first cases of each set.

    Raises:
        ConfigError: for a folder that is none of these, without the split, without a case, or with a name
            that another one has.
    """
    sets = [_open(word, split, fold, limit) for word in words]
    names = [data.name for data in sets]
    if not names:
        raise ConfigError("there is no data to evaluate on; give --data FOLDER")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two data sets are called {name!r}; put another name before one: NAME=FOLDER")
    return sets


def _open(word: str, split: str, fold: int, limit: int | None) -> EvaluationData:
    given_name, separator, path = word.partition("=")
    if not separator or "/" in given_name:  # the = belongs to a path
        given_name, path = "", word
    folder = Path(path)
    if is_prepared_set(folder):
        data = _prepared(folder, split, fold)
    elif (folder / "dataset.json").is_file():
        data = _msd(folder)
    elif any(folder.glob("*.npz")):
        data = _challenge(folder)
    else:
        raise ConfigError(
            f"{folder} is no data set; give a folder of clickvol data prepare, in MSD layout "
            "(dataset.json), or with .npz files of the CVPR 2025 challenge"
        )
    if split != WHOLE_SET and not is_prepared_set(folder):
        raise ConfigError(
            f"{folder} has no splits, so there is no {split!r}; prepare it with clickvol data prepare, or "
            "give --split all"
        )
    if not data.cases:
        raise ConfigError(f"{folder} has no cases in the part {split!r} of fold {fold}; choose another")
    return EvaluationData(given_name or data.name, data.content_hash, data.cases[:limit])


def _prepared(folder: Path, split: str, fold: int) -> EvaluationData:
    prepared = read_prepared_set(folder)
    cases = tuple(
        EvaluationCase(
            case.id,
            case.group,
            case.modality,
            partial(read_native_case, case),
            None if case.tumour_label is None else partial(_read_native_organ, case),
        )
        for case in prepared.part(split, fold)
    )
    return EvaluationData(prepared.name, prepared.content_hash, cases)


def _read_native_organ(case: PreparedCase) -> NDArray[np.uint8]:
    """Return every labelled voxel, the tumour too: (D, H, W), 0 or 1, on the native grid."""
    image = read_volume(case.image.path, volume_index=case.volume_index)
    label = read_label(case.label.path, image).array
    return organ_of_label(label, object_mask(label, case.tumour_label))


def _msd(folder: Path) -> EvaluationData:
    index = read_msd_index(folder)
    first_channel = index.channels[0].upper() if index.channels else ""
    modality: Modality = "unknown"
    if first_channel == "CT":
        modality = "CT"
    elif first_channel.startswith("MR"):
        modality = "MR"
    records = list_msd_cases(folder, modality)
    cases = tuple(
        EvaluationCase(
            record.case_id,
            record.case_id,
            modality,
            partial(_read_msd, record.image, record.label, modality),
        )
        for record in records
    )
    files = [path for record in records for path in (record.image, record.label)]
    return EvaluationData(folder.resolve().name, _hash_of_files(files), cases)


def _read_msd(image: Path, label: Path, modality: Modality) -> LabelledScan:
    volume, mask = read_pair(image, label, None, volume_index=None)
    if modality != "unknown":
        volume = Volume(volume.array, volume.grid, modality, volume.source, volume.notes)
    return volume, mask


def _challenge(folder: Path) -> EvaluationData:
    cases = tuple(
        EvaluationCase(case.case_id, case.file.stem, case.modality, case.read)
        for case in list_challenge_cases(folder)
    )
    return EvaluationData(folder.resolve().name, _hash_of_files(sorted(folder.glob("*.npz"))), cases)


def _hash_of_files(files: Sequence[Path]) -> str:
    """Hash names and sizes; the contents would take as long as the evaluation of a ball."""
    states = "".join(f"{file.name} {file_state(file)[0]}\n" for file in files)
    return hashlib.sha256(states.encode("utf-8")).hexdigest()

"""Labelled scans of a folder, ready to draw samples from: a prepared data set or a bare MSD folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.loader import read_labelled
from clickvol.datasets.msd import CaseRecord, list_msd_cases
from clickvol.datasets.organs import OrganPlan, read_organ
from clickvol.datasets.prepared import (
    CaseModality,
    PreparedCase,
    PreparedSet,
    is_prepared_set,
    object_mask,
    read_prepared_case,
    read_prepared_set,
)
from clickvol.datasets.resampling import resample_mask
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sources import list_source
from clickvol.errors import ConfigError
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_label


def read_folder_cases(
    path: Path,
    modality: CaseModality | None,
    excluded_patients: tuple[str, ...],
    split: str = "train",
    fold: int = 0,
    tumour_label: int | None = None,
    organs: OrganPlan | None = None,
    scale: Literal["scan", "set"] = "scan",
) -> list[LabelledVolume]:
    """Read the labelled scans of a part of a data set.

    The arrays of a prepared set are mapped into memory; scans of an MSD folder are read whole.

    Args:
        path: a folder of `clickvol data prepare`, or one in MSD layout, which has no parts.
        modality: of the scans; None for what the folder says.
        excluded_patients: never returned: cases whose id ends with "_" and one of these.
        split: part of a prepared set, or "all"; of an MSD folder "train" and "all" are all scans.
        fold: which split of a prepared set.
        tumour_label: value of the object in the labels; None for what a prepared set was made with, or
            every value above 0 of an MSD folder.
        organs: where organ masks come from; None for networks that see none.
        scale: "scan" for the package's own intensity scale, by modality or by scan; "set" for the
            constants of a prepared set.

    Raises:
        ConfigError: when the folder is neither, contradicts an argument, or nothing is left.
        UnreadableVolumeError: when a scan cannot be read.
    """
    if is_prepared_set(path):
        prepared = read_prepared_set(path)
        chosen = [
            (case, record)
            for case in prepared.part(split, fold)
            if not (record := _record(case)).belongs_to(excluded_patients)
        ]
        _refuse_nothing(path, split, chosen)
        _refuse_contradiction(path, [case for case, _ in chosen], modality, tumour_label)
        return [_read_prepared(path, prepared, case, organs, scale) for case, _ in chosen]
    if scale == "set" or split not in ("train", "all") or fold:
        raise ConfigError(
            f"{path} is not a prepared data set, so it has neither parts nor constants; prepare it first"
        )
    known = modality or list_source("msd", path).modality
    if known is None:
        raise ConfigError(f"the dataset.json of {path} says neither CT nor MR; give the modality")
    records = [r for r in list_msd_cases(path, known) if not r.belongs_to(excluded_patients)]
    _refuse_nothing(path, split, records)
    return [read_labelled(r, tumour_label=tumour_label, organs=organs) for r in records]


def _refuse_nothing(path: Path, split: str, found: Sequence[object]) -> None:
    if not found:
        raise ConfigError(f"{path} has no case left in {split!r} that is not excluded; mend splits or patients")


def _refuse_contradiction(
    path: Path,
    cases: Sequence[PreparedCase],
    modality: CaseModality | None,
    tumour_label: int | None,
) -> None:
    for case in cases:
        if modality is not None and case.modality != modality:
            raise ConfigError(
                f"{path} was prepared with {case.id} as {case.modality}, not {modality}; mend one of them"
            )
        if tumour_label is not None and case.tumour_label != tumour_label:
            made = "every value above 0" if case.tumour_label is None else f"{case.tumour_label}"
            raise ConfigError(
                f"{path} was prepared with the tumour label {made}, not {tumour_label}; leave it out"
            )


def _record(case: PreparedCase) -> CaseRecord:
    return CaseRecord(case.id, case.modality, case.image.path, case.label.path)


def _read_prepared(
    path: Path,
    prepared: PreparedSet,
    case: PreparedCase,
    organs: OrganPlan | None,
    scale: Literal["scan", "set"],
) -> LabelledVolume:
    volume, mask = read_prepared_case(path, case)
    organ = None if organs is None else _prepared_organ(case, organs)
    labelled = LabelledVolume.of(volume, mask, organ)
    if scale == "scan":
        return labelled
    known = prepared.intensity[case.modality].scale()
    return replace(labelled, scale=known, outside_value=known.outside)


def _prepared_organ(case: PreparedCase, organs: OrganPlan) -> NDArray[np.uint8] | None:
    """Return the organ mask on the grid of the cached arrays: (D, H, W), 0 or 1."""
    if organs.source == "none":
        return None
    image = read_volume(case.image.path, volume_index=case.volume_index)
    label = read_label(case.label.path, image)
    tumour = object_mask(label.array, case.tumour_label)
    organ = read_organ(organs, _record(case), image, label, tumour)
    grid = case.grid()
    return organ if organ is None or grid == image.grid else resample_mask(organ, image.grid, grid)

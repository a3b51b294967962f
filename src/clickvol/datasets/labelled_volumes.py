"""Labelled scans of a prepared data set, ready to draw samples from."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.case_index import IndexRow
from clickvol.datasets.prepared import (
    LABELLED_BIT,
    ORGAN_BIT,
    CaseIndex,
    CaseModality,
    LabelledCase,
    PreparedSet,
    read_prepared_set,
)
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.preprocessing.channels import NOTHING_BUT_THE_TUMOUR, OrganMaskSource
from clickvol.preprocessing.intensity import CT_WINDOW_HU, IntensityScale


def read_labelled_volumes(
    folder: Path,
    part: str = "train",
    fold: int = 0,
    *,
    organs: OrganMaskSource | None = None,
    scale: Literal["scan", "set"] = "scan",
    **conditions: Any,  # noqa: ANN401
) -> list[LabelledVolume]:
    """Return the labelled scans of a part of a prepared data set; voxels are read when they are asked for.

    Args:
        folder: see `read_labelled_cases`.
        part: the same.
        fold: the same.
        organs: where organ masks come from; None for networks that see none.
        scale: "scan" for the package's own intensity scale, "set" for the constants of the set.
        conditions: further arguments of `read_labelled_cases`.

    Raises:
        ConfigError: when the folder is not prepared, contradicts an argument, or nothing is left.
    """
    prepared, cases = read_labelled_cases(folder, part, fold, **conditions)
    index = CaseIndex(prepared)
    volumes = []
    for case in cases:
        volume = _labelled(case, index.row(case), organs)
        if scale == "set":
            known = prepared.intensity[case.modality].scale()
            volume = replace(volume, scale=known, outside_value=known.outside)
        volumes.append(volume)
    return volumes


def read_labelled_cases(
    folder: Path,
    part: str = "train",
    fold: int = 0,
    *,
    modality: CaseModality | None = None,
    tumour_label: int | None = None,
    excluded_patients: tuple[str, ...] = (),
) -> tuple[PreparedSet, list[LabelledCase]]:
    """Return a prepared data set and the cases of a part of it; no scan is read.

    Args:
        folder: of `clickvol data prepare`.
        part: "train", "val", "test" or "all".
        fold: which split.
        modality: that the scans must have been prepared as; None for any.
        tumour_label: that they must have been prepared with; None for any.
        excluded_patients: never returned: cases whose id ends with "_" and one of these.

    Raises:
        ConfigError: when the folder is not prepared, contradicts an argument, or nothing is left.
    """
    prepared = read_prepared_set(folder)
    cases = [case for case in prepared.part(part, fold) if not case.belongs_to(excluded_patients)]
    if not cases:
        raise ConfigError(
            f"{folder} has no case left in {part!r} that is not excluded; change the splits or patients"
        )
    for case in cases:
        if modality is not None and case.modality != modality:
            raise ConfigError(
                f"{folder} was prepared with {case.case_id} as {case.modality}, not {modality}; correct one"
            )
        if tumour_label is not None and case.tumour_label != tumour_label:
            made = "every value above 0" if case.tumour_label is None else f"{case.tumour_label}"
            raise ConfigError(
                f"{folder} was prepared with the tumour label {made}, not {tumour_label}; leave it out"
            )
    return prepared, cases


def _labelled(case: LabelledCase, row: IndexRow, organs: OrganMaskSource | None) -> LabelledVolume:
    """Return a case with what the index has of it; neither scan nor label is read."""
    volume, label = case.open_arrays()
    window = CT_WINDOW_HU if case.modality == "CT" else case.facts.window
    scale = IntensityScale.of_window(*window)
    return LabelledVolume(
        volume=volume,
        label=label,
        scale=scale,
        outside_value=scale.outside,
        index=row,
        object_runs_dhw=case.facts.runs_dhw,
        longest_side_mm=case.facts.longest_side_mm,
        coarser=case.open_levels(),
        organ=_organ(case, organs),
    )


def _organ(case: LabelledCase, organs: OrganMaskSource | None) -> NDArray[np.uint8] | None:
    """Return the organ mask, (D, H, W) 0 or 1, unread; None for "none"; ConfigError where there is no other."""
    if organs is None or organs == "none":
        return None
    if organs == "gt":
        if not case.has_labelled:
            raise ConfigError(f"{case.case_id}: {NOTHING_BUT_THE_TUMOUR}")
        return case.open_mask(LABELLED_BIT)
    if not case.has_organ:
        raise ConfigError(
            f"{case.folder} has no organ mask of {case.case_id}; run clickvol data prepare again with "
            '--organs, as in --organs "../organs/{case_id}.nii.gz"'
        )
    return case.open_mask(ORGAN_BIT)

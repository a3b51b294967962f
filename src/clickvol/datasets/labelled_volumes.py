"""Labelled scans of a prepared data set, ready to draw samples from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.case_preparation import check_one_grid
from clickvol.datasets.prepared import CaseModality, LabelledCase, read_prepared_set
from clickvol.datasets.resampling import resample_mask
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Mask
from clickvol.preprocessing.channels import OrganMaskSource, organ_of_values


@dataclass(frozen=True, kw_only=True)
class OrganPlan:
    """Where organ masks come from.

    Attributes:
        source: see `OrganMaskSource`.
        path: for "file": the mask of a scan, relative to the folder that the scan was prepared from; {case_id}
            stands for the case's id, as in "../organs/{case_id}.nii.gz".
    """

    source: OrganMaskSource
    path: str = ""

    def __post_init__(self) -> None:
        if self.source != "file":
            return
        try:
            has_case = self.path.format(case_id="a") != self.path.format(case_id="b")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"the organ path {self.path!r} has a field other than {{case_id}}; correct it"
            ) from error
        if not has_case:
            raise ConfigError(
                f"the organ path {self.path!r} is the same for every scan; write {{case_id}} into it"
            )


def read_labelled_volumes(
    folder: Path,
    part: str = "train",
    fold: int = 0,
    *,
    modality: CaseModality | None = None,
    tumour_label: int | None = None,
    excluded_patients: tuple[str, ...] = (),
    organs: OrganPlan | None = None,
    scale: Literal["scan", "set"] = "scan",
) -> list[LabelledVolume]:
    """Return the labelled scans of a part of a prepared data set, mapped into memory.

    Args:
        folder: of `clickvol data prepare`.
        part: "train", "val", "test" or "all".
        fold: which split.
        modality: that the scans must have been prepared as; None for any.
        tumour_label: that they must have been prepared with; None for any.
        excluded_patients: never returned: cases whose id ends with "_" and one of these.
        organs: where organ masks come from; None for networks that see none.
        scale: "scan" for the package's own intensity scale, by modality or by scan; "set" for the
            constants of the set.

    Raises:
        ConfigError: when the folder is not prepared, contradicts an argument, or nothing is left.
        UnreadableVolumeError: when an organ mask cannot be read.
    """
    prepared = read_prepared_set(folder)
    cases = [case for case in prepared.part(part, fold) if not case.belongs_to(excluded_patients)]
    if not cases:
        raise ConfigError(
            f"{folder} has no case left in {part!r} that is not excluded; change the splits or patients"
        )
    _refuse_contradiction(folder, cases, modality, tumour_label)
    volumes = []
    for case in cases:
        organ = None if organs is None else _read_organ(case, organs)
        volume = LabelledVolume.of(*case.map_arrays(), organ)
        if scale == "set":
            known = prepared.intensity[case.modality].scale()
            volume = replace(volume, scale=known, outside_value=known.outside)
        volumes.append(volume)
    return volumes


def _refuse_contradiction(
    folder: Path, cases: Sequence[LabelledCase], modality: CaseModality | None, tumour_label: int | None
) -> None:
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


def _read_organ(case: LabelledCase, organs: OrganPlan) -> NDArray[np.uint8] | None:
    """Return the organ mask on the grid of the arrays, (D, H, W) 0 or 1; None for the source "none".

    Raises:
        UnreadableVolumeError: when the file is missing or cannot be read.
        ConfigError: when the file is not on the grid of the scan, or a label has nothing but the tumour.
    """
    if organs.source == "none":
        return None
    if organs.source == "gt":
        organ = case.read_native_organ()
    else:
        image = case.read_native_image()
        label = read_label(case.source_image.path.parent / organs.path.format(case_id=case.case_id), image)
        check_one_grid(image, label)
        organ = Mask(organ_of_values(label.array), image.grid)
    grid = case.grid()
    return organ.array if grid == organ.grid else resample_mask(organ.array, organ.grid, grid)

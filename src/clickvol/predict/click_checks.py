"""Clicks in air, with nothing but air around them, which mean no object; masks of a few voxels, or cut off."""

from collections.abc import Sequence

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.preprocessing.intensity import IntensityScale

# Nothing is segmented where all but a hundredth of a ball of this radius is air. Lung and bowel hold more.
_AIR_RADIUS_MM = 8.0
_AIR_SHARE = 99

# CT: the lung is at -850 HU on average, the air around the body at -1000.
_AIR_HU = -900.0

# Elsewhere the lowest part of the window of the values.
_DARK_PART = 0.05

_FEW_VOXELS = 20


def clicks_in_air(scan: NormalisedScan, inside: Sequence[WorldPointRAS]) -> list[WorldPointRAS]:
    """Return the places inside the object with nothing but air within 8 mm."""
    limit = _AIR_HU
    if scan.modality != "CT":
        scale = scan.scale
        low, high = (scale.low, scale.high) if isinstance(scale, IntensityScale) else scale.values[:2]
        limit = low + _DARK_PART * (high - low)
    grid, array = scan.volume.grid, scan.volume.array
    radius_mm = max(_AIR_RADIUS_MM, float(grid.spacing_dhw_mm.max()))
    around = [array[grid.ball_box(place, radius_mm).slices].astype(np.float64) for place in inside]
    brightest = [np.percentile(values, _AIR_SHARE) for values in around]
    return [place for place, value in zip(inside, brightest, strict=True) if value < limit]


def warnings_of_size(num_voxels: int) -> tuple[str, ...]:
    """Say in one sentence when a mask is too small to be trusted."""
    if not 0 < num_voxels < _FEW_VOXELS:
        return ()
    return (
        f"the object fills {num_voxels} voxels, too few to tell its shape; check it slice by slice, or use a "
        "finer scan",
    )


_SIDES = (("left", "right"), ("back", "front"), ("foot", "head"))  # towards negative and positive RAS


def warnings_at_border(box: VoxelBox | None, grid: VolumeGrid) -> tuple[str, ...]:
    """Say in one sentence where an object reaches the end of the scan, and may go on.

    `box` is around its mask, None for an empty one; of axes with fewer than three voxels nothing is said.
    """
    sides = []
    for axis, (length, along) in enumerate(zip(grid.shape_dhw, grid.world_steps(np.eye(3)), strict=True)):
        if box is None or length < 3:
            continue
        patient_axis = int(np.abs(along).argmax())
        names = _SIDES[patient_axis][:: 1 if along[patient_axis] > 0 else -1]
        sides += [names[0]] if box.start_dhw[axis] == 0 else []
        sides += [names[1]] if box.stop_dhw[axis] == length else []
    if not sides:
        return ()
    return (f"the object reaches the border of the scan ({', '.join(sides)}) and may go on beyond it",)

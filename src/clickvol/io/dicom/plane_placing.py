"""Planes and contours of other programs, in millimetres, onto the voxels of a scan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

# How far from the middle of a voxel something may lie that is meant for it, in voxels. Positions are rounded
# when they are written, and slices may lie a tenth of a millimetre beside a regular stack; a grid that is
# half a voxel off is another grid.
_MAX_OFFSET_VOXELS = 0.25

# How much a step from pixel to pixel may differ from one to the next voxel, in voxels over the whole plane.
_MAX_DRIFT_VOXELS = 0.25

_SAME_POSITION_MM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Where a frame lies: its first pixel's centre (3,), unit vectors along a row and a column (6,), steps."""

    position_lps_mm: NDArray[np.float64]
    orientation_lps: NDArray[np.float64]
    spacing_hw_mm: tuple[float, float]

    @property
    def steps_lps_mm(self) -> NDArray[np.float64]:
        """(2, 3): from a pixel to the one below it, and to the one on its right."""
        axes = np.stack([self.orientation_lps[3:], self.orientation_lps[:3]])
        return np.asarray(axes * np.array(self.spacing_hw_mm)[:, np.newaxis])


def place_plane(
    inside: NDArray[np.bool_],
    plane: Plane,
    grid: VolumeGrid,
    array: NDArray[np.uint8],
    source: str,
) -> None:
    """Set the voxels of a mask (D, H, W) that a frame (H, W), any True, marks.

    The frame may run along any axes of the grid, in any direction, and cover a part of it; its pixels must
    be voxels, else an UnreadableVolumeError.
    """
    steps = grid.voxel_steps(plane.steps_lps_mm * _LPS_TO_RAS)
    (first,) = grid.voxel_positions(plane.position_lps_mm[np.newaxis] * _LPS_TO_RAS)
    whole = np.rint(steps)
    drift = np.abs(steps - whole).max(axis=1) * np.array(inside.shape)
    is_one_voxel = (np.abs(whole).sum(axis=1) == 1).all() and (drift < _MAX_DRIFT_VOXELS).all()
    pixels = np.argwhere(inside)
    voxels = first + pixels @ steps
    nearest = np.rint(voxels)
    if not is_one_voxel or np.abs(voxels - nearest).max() > _MAX_OFFSET_VOXELS:
        raise UnreadableVolumeError(
            f"{source} has other voxels than the scan (their size, direction or place differs); resample it to "
            "the grid of the scan"
        )
    d, h, w = nearest.astype(int).T
    if (nearest < 0).any() or (nearest >= grid.shape_dhw).any():
        raise UnreadableVolumeError(f"{source} reaches beyond the scan; check that it belongs to this series")
    array[d, h, w] = 1


def grid_of_planes(planes: Sequence[Plane], shape_hw: tuple[int, int], source: str) -> VolumeGrid:
    """Return the smallest grid with d along (row x column) that has a slice at each plane, in whatever order.

    Several may lie at one place, and gaps are filled. UnreadableVolumeError for planes of several directions.
    """
    first = planes[0]
    if any(not np.allclose(p.orientation_lps, first.orientation_lps, atol=1e-3) for p in planes):
        raise UnreadableVolumeError(
            f"{source} has planes of several directions; give the scan that it was drawn on"
        )
    normal = np.cross(first.orientation_lps[:3], first.orientation_lps[3:])
    ordered = sorted(planes, key=lambda p: float(normal @ p.position_lps_mm))
    heights_mm = np.array([normal @ p.position_lps_mm for p in ordered])
    gaps_mm = np.diff(heights_mm)
    gaps_mm = gaps_mm[gaps_mm > _SAME_POSITION_MM]
    length_mm = heights_mm[-1] - heights_mm[0]
    count = 1 if gaps_mm.size == 0 else round(length_mm / gaps_mm.min()) + 1
    # A single plane has no distance to the next; 1 mm, so that it has a volume.
    step = normal if count == 1 else ordered[-1].position_lps_mm - ordered[0].position_lps_mm
    affine_lps = np.eye(4)
    affine_lps[:3, :2] = first.steps_lps_mm[::-1].T
    affine_lps[:3, 2] = step / max(count - 1, 1)
    affine_lps[:3, 3] = ordered[0].position_lps_mm
    return VolumeGrid.from_ijk_lps((*shape_hw[::-1], count), affine_lps)


def slice_positions(
    points_lps_mm: NDArray[np.float64], grid: VolumeGrid, source: str
) -> tuple[int, NDArray[np.float64]]:
    """Return the index along d of the slice that a contour (N, 3) lies in, and its (h, w) in voxels, (N, 2).

    UnreadableVolumeError when it does not lie in one slice of the grid.
    """
    voxels = grid.voxel_positions(points_lps_mm * _LPS_TO_RAS)
    index = int(np.rint(np.median(voxels[:, 0])))
    if not np.abs(voxels[:, 0] - index).max() <= _MAX_OFFSET_VOXELS:
        raise UnreadableVolumeError(
            f"{source} has a contour that lies in no slice of the scan; check that it belongs to this series "
            "and was drawn on its slices"
        )
    if not 0 <= index < grid.shape_dhw[0]:
        raise UnreadableVolumeError(
            f"{source} has a contour beyond the scan; check that it belongs to this series"
        )
    return index, np.asarray(voxels[:, 1:])

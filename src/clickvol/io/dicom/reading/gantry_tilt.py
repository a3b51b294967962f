"""CT of a tilted gantry: each slice is shifted in its plane against the one before.

Such a stack is a regular but sheared grid. Everything here knows sheared grids, so by default it is kept, and a
mask fits the slices of the file. Programs that do not know them need a rectangular one.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.interpolation import read_along

GantryTilt = Literal["keep", "refuse", "resample"]
"""What becomes of a tilted series: kept on its sheared grid, refused, or resampled to a rectangular grid."""

_MIN_TILT_DEGREES = 0.1

# CT gantries tilt by at most 30 degrees; far beyond, the positions are wrong, and the rectangular grid would be
# mostly empty.
_MAX_TILT_DEGREES = 45.0


def tilt_degrees(grid: VolumeGrid) -> float:
    """Return the angle between the d axis and the normal of the slices; 0 below 0.1 degrees."""
    step, along_h, along_w = grid.world_steps(np.eye(3))
    normal = np.cross(along_h, along_w)
    cosine = abs(float(step @ normal)) / float(np.linalg.norm(step) * np.linalg.norm(normal))
    degrees = math.degrees(math.acos(min(cosine, 1.0)))
    return degrees if degrees >= _MIN_TILT_DEGREES else 0.0


def rectangular_grid(grid: VolumeGrid, source: str) -> VolumeGrid:
    """Return the smallest grid with d along the normal of the slices that holds every slice whole.

    Its slices lie in the planes of the given ones; slice 0 keeps its voxel positions. DicomSeriesError for a
    tilt that no gantry has.
    """
    degrees = tilt_degrees(grid)
    if degrees > _MAX_TILT_DEGREES:
        raise DicomSeriesError(
            f"{source}: the slices are shifted as if the gantry were tilted by {degrees:.1f} degrees, but at "
            f"most {_MAX_TILT_DEGREES:g} can be resampled; keep the tilt, or repair the positions"
        )
    start, stop = _range_hw(grid)
    return grid.straightened().crop(VoxelBox.of((0, *start), (grid.shape_dhw[0], *stop)))


def resample_tilted(
    array: NDArray[np.generic], grid: VolumeGrid, source: str
) -> tuple[NDArray[np.generic], VolumeGrid]:
    """Shift every slice of a finite array (D, H, W) back in its plane, by linear interpolation.

    The result (D, H', W') has the same dtype, integers rounded to the nearest, with the smallest value of the
    scan where no slice reaches; and the `rectangular_grid`.
    """
    target = rectangular_grid(grid, source)
    shift_hw = _shift_hw(grid)
    start, _ = _range_hw(grid)
    floor = array.min()
    straight = np.full(target.shape_dhw, floor, dtype=array.dtype)
    dtype = np.float64 if array.dtype.itemsize > 2 else np.float32
    for index, plane in enumerate(array):
        # Where row and column 0 of the target lie in this slice.
        first_h, first_w = (start - index * shift_hw).tolist()
        values: NDArray[np.floating] = plane.astype(dtype)
        for axis, (first, count) in enumerate(zip((first_h, first_w), target.shape_dhw[1:], strict=True)):
            # A whole pixel but for rounding is whole, so that it does not lie outside.
            places = first + np.arange(count)
            places = np.where(np.abs(places - np.rint(places)) < 1e-6, np.rint(places), places)
            values = read_along(values, axis, places, outside=float(floor))
        straight[index] = np.rint(values) if array.dtype.kind in "iu" else values
    return straight, target


def _shift_hw(grid: VolumeGrid) -> NDArray[np.float64]:
    """Return by how many pixels (2,) a slice is shifted against the one before, along h and w."""
    step, *in_plane = grid.world_steps(np.eye(3))
    return np.asarray(np.array(in_plane) @ step / grid.spacing_dhw_mm[1:] ** 2)


def _range_hw(grid: VolumeGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and one past the last pixel (2,) that some slice reaches, in pixels of slice 0."""
    last_shift = (grid.shape_dhw[0] - 1) * _shift_hw(grid)
    # Not a whole pixel more for the rounding of a shift of zero.
    start = np.floor(np.minimum(last_shift, 0) + 1e-6).astype(np.int64)
    stop = np.ceil(np.maximum(last_shift, 0) - 1e-6).astype(np.int64) + grid.shape_dhw[1:]
    return start, stop

"""A whole scan and its mask on voxels of another size: done once, when a data set is prepared."""

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import extract
from clickvol.preprocessing.intensity import KnottedScale

# Sampling places take 40 bytes and more per voxel, so a scan is resampled in slabs of this many voxels.
_SLAB_VOXELS = 4_000_000

_INT16 = np.iinfo(np.int16)

# Steps of a coarser level: 48 values over what the networks of the package tell apart.
_LEVEL_STEPS = 47

# Of the 24 significant bits of a float32, as many as leave those of a float16.
_DROPPED_BITS = 13


def resampled_grid(grid: VolumeGrid, spacing_dhw_mm: tuple[float, float, float]) -> VolumeGrid:
    """Return a grid along the same axes and around the same middle, with voxels of another size.

    Per axis it has length / spacing voxels, rounded (halves up) and at least one, so it differs from the
    scan by a quarter of a new voxel per side at most.
    """
    old_mm = grid.spacing_dhw_mm
    new_mm = np.asarray(spacing_dhw_mm, dtype=np.float64)
    shape = np.array(grid.shape_dhw)
    new_shape = np.maximum(1, np.floor(shape * old_mm / new_mm + 0.5)).astype(int)
    d, h, w = new_shape.tolist()
    return grid.with_steps(np.diag(new_mm / old_mm), (d, h, w))


def resample(array: NDArray[np.generic], grid: VolumeGrid, new_grid: VolumeGrid) -> NDArray[np.float32]:
    """Sample a volume on a grid of `resampled_grid`: averaged where that is coarser, then linear; float32."""
    depth, height, width = new_grid.shape_dhw
    planes = max(1, _SLAB_VOXELS // (height * width))
    result = np.empty(new_grid.shape_dhw, dtype=np.float32)
    outside = float(array.min())
    for first in range(0, depth, planes):
        last = min(first + planes, depth)
        slab = new_grid.crop(VoxelBox((first, 0, 0), (last, height, width)))
        result[first:last] = extract(array, grid, slab, outside_value=outside)
    return result


def resample_mask(mask: NDArray[np.uint8], grid: VolumeGrid, new_grid: VolumeGrid) -> NDArray[np.uint8]:
    """Resample a mask, (D, H, W) of 0 and 1: new voxels that are more than half inside the object."""
    return (resample(mask, grid, new_grid) > 0.5).astype(np.uint8)


def cache_values(
    values: NDArray[np.generic], stored: NDArray[np.generic]
) -> NDArray[np.int16] | NDArray[np.float32]:
    """Return values as they are kept: int16, rounded, where the integers of the scan as read fit; else float32.

    Of float32, 11 significant bits are kept (1 part in 2048, less than the noise of a scanner): the others
    do not compress.
    """
    whole = stored.dtype.kind in "iu"
    if whole and int(stored.min()) >= _INT16.min and int(stored.max()) <= _INT16.max:
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        return np.ascontiguousarray(rounded, dtype=np.int16)
    floats = np.array(values, dtype=np.float32, order="C")
    bits = floats.view(np.uint32)
    # To the nearest; a carry goes on into the exponent, as it should.
    bits += np.uint32(1 << (_DROPPED_BITS - 1))
    bits &= np.uint32(0xFFFFFFFF << _DROPPED_BITS & 0xFFFFFFFF)
    return floats


def level_numbers(
    level: NDArray[np.generic], stored: NDArray[np.generic], scale: KnottedScale
) -> tuple[NDArray[np.uint8], NDArray[np.generic]]:
    """Round a coarser level to 48 values, which is less than its noise and compresses to a third.

    Args:
        level: (D, H, W).
        stored: the array of the scan as it is kept, whose dtype counts.
        scale: on which the values lie at equal distances: of CT 14 HU in the soft-tissue window.

    Returns:
        The number of each voxel's value, and the values (48,).
    """
    low, high = scale.normalised[0], scale.normalised[-1]
    normalised = scale.normalise(np.asarray(level, dtype=np.float32))
    numbers = np.rint((normalised - low) * (_LEVEL_STEPS / (high - low))).astype(np.uint8)
    values = np.interp(np.linspace(low, high, _LEVEL_STEPS + 1), scale.normalised, scale.values)
    if stored.dtype == np.int16:
        values = np.clip(np.rint(values), _INT16.min, _INT16.max)
    return numbers, values.astype(stored.dtype)

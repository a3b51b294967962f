"""A field of view: a cube of the patient, sampled for the model.

The unit of work of this package. Its axes follow the patient (d to superior, h to anterior, w to the
right), not the file, so that the same patient stored oblique, flipped or permuted gives the same patch.
Nothing here resamples a whole scan: only the voxels under the field of view are read.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import PatchPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.interpolation import read_along

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class FieldOfView:
    """A cube of the patient: its middle, the side of the patch's voxels, and how many there are per axis."""

    centre: WorldPointRAS
    voxel_mm: float
    shape_dhw: Triple

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Length of the sides along d, h, w."""
        d, h, w = (n * self.voxel_mm for n in self.shape_dhw)
        return (d, h, w)

    def grid(self) -> VolumeGrid:
        """Return the grid of the patch: d grows to superior, h to anterior, w to the right."""
        return self._grid

    @cached_property
    def _grid(self) -> VolumeGrid:
        return VolumeGrid.along_patient(self.shape_dhw, self.voxel_mm, self.centre)

    def to_patch(self, point: WorldPointRAS) -> PatchPoint:
        """Return where a place of the patient lies in the patch; may be outside."""
        return PatchPoint.of(self.grid().to_voxel(point).as_array())


def extract(
    array: NDArray[np.generic],
    grid: VolumeGrid,
    patch_grid: VolumeGrid,
    *,
    outside_value: float,
    displacement_voxel: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Sample a volume (D, H, W), any real dtype, on the grid of a patch of any orientation, float32.

    Where patch voxels are coarser than the volume's, the volume is averaged over blocks first, so that nothing
    aliases; then it is read by linear interpolation. A place counts as inside the volume up to half a voxel (of
    the coarser of the two) past the outermost voxel centres, where it takes the outermost value; so a single
    slice fills the patch planes next to it. `displacement_voxel` (3, *patch shape) is added to the sampling
    places, in patch voxels (training augmentation).
    """
    array, to_volume = _run_with_patch(array, patch_grid.voxel_matrix_to(grid))
    shares_axes = displacement_voxel is None and np.count_nonzero(to_volume[:3, :3]) == 3
    places = _places(to_volume, patch_grid.shape_dhw, displacement_voxel)
    if not shares_axes:
        places = [np.broadcast_to(place, patch_grid.shape_dhw) for place in places]
    # Patch voxels per step of a volume axis, for averaging and for the reach past the border.
    step = np.linalg.norm(to_volume[:3, :3], axis=1)
    reach = np.maximum(0.5, 0.5 * step) + 1e-3
    along = [(p >= -r) & (p <= n - 1 + r) for p, r, n in zip(places, reach, array.shape, strict=True)]
    inside = along[0] & along[1] & along[2]
    patch = np.full(patch_grid.shape_dhw, outside_value, dtype=np.float32)
    if not inside.any():
        return patch
    block = np.maximum(1, np.floor(step + 1e-3)).astype(int)
    seen = [place[own if shares_axes else inside] for place, own in zip(places, along, strict=True)]
    # Blocks begin at the volume's first voxel, so that every field of view averages the same ones.
    start = [
        min(max(int(np.floor(s.min())) - b, 0), n - 1) // b * b
        for s, b, n in zip(seen, block.tolist(), array.shape, strict=True)
    ]
    stop = [
        min(-(-(int(np.ceil(s.max())) + 1 + b) // b) * b, n)
        for s, b, n in zip(seen, block.tolist(), array.shape, strict=True)
    ]
    under = array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    coarse = block_mean(under, block)
    at = [(s - a - (b - 1) / 2) / b for s, a, b in zip(seen, start, block.tolist(), strict=True)]
    if not shares_axes:
        patch[inside] = ndimage.map_coordinates(coarse, np.stack(at), order=1, mode="nearest", prefilter=False)
        return patch
    # The same axis by axis, at a small part of the cost.
    values: NDArray[np.floating] = coarse.astype(np.float64)
    for axis in range(3):
        values = read_along(values, axis, at[axis].astype(np.float64))
    patch[inside] = values.transpose(np.abs(to_volume[:3, :3]).argmax(axis=0)).ravel()
    return patch


def paste_box(
    patch: NDArray[np.float32], patch_grid: VolumeGrid, grid: VolumeGrid, threshold: float
) -> VoxelBox | None:
    """Return the volume voxels that may hold values above a threshold of a patch; None if none can."""
    inner = bounding_box(patch > threshold)
    if inner is None:
        return None
    low, high = patch_grid.bounds_in(grid, inner, reach_voxels=1.0)
    box = VoxelBox.of(np.floor(low), np.ceil(high) + 1).clip(grid.shape_dhw)
    return None if box.is_empty else box


def paste(
    patch: NDArray[np.float32], patch_grid: VolumeGrid, grid: VolumeGrid, box: VoxelBox
) -> NDArray[np.float32]:
    """Read a patch at the voxel centres of a box of the volume, linear, float32; 0 outside the patch.

    The box must not overhang.
    """
    to_patch = grid.voxel_matrix_to(patch_grid)
    matrix = to_patch[:3, :3]
    offset = matrix @ np.array(box.start_dhw, dtype=np.float64) + to_patch[:3, 3]
    # Patch axis that each volume axis runs along, where the two grids share their axes.
    main = np.abs(matrix).argmax(axis=0)
    rest = matrix.copy()
    rest[main, range(3)] = 0.0
    if sorted(main) == [0, 1, 2] and np.abs(rest).max() <= 1e-6 * np.abs(matrix).max():
        return _paste_separable(np.transpose(patch, main), matrix, offset, main, box.shape_dhw)
    result: NDArray[np.float32] = ndimage.affine_transform(
        patch,
        matrix,
        offset=offset,
        output_shape=box.shape_dhw,
        order=1,
        mode="constant",
        cval=0.0,
        prefilter=False,
    )
    return result


def _paste_separable(
    turned: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    main: NDArray[np.intp],
    shape: Triple,
) -> NDArray[np.float32]:
    """Interpolate axis by axis: for parallel axes the same values, at a small part of the cost."""
    values = turned
    for axis in range(3):
        places = offset[main[axis]] + matrix[main[axis], axis] * np.arange(shape[axis])
        values = read_along(values, axis, places, outside=0.0).astype(np.float32, copy=False)
    return values


def _run_with_patch(
    array: NDArray[np.generic], to_volume: NDArray[np.float64]
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Flip volume axes that run against the patch, so that a flipped copy of a scan has the same blocks."""
    matrix = to_volume.copy()
    for axis in range(3):
        row = matrix[axis]
        if row[np.abs(row[:3]).argmax()] < 0:
            matrix[axis] = -row
            matrix[axis, 3] += array.shape[axis] - 1
            array = np.flip(array, axis)
    return array, matrix


def _places(
    matrix: NDArray[np.float64], shape: Triple, displacement: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    """Return, per volume axis, the place in volume voxels of each patch voxel, one long where it is one."""
    axes = np.ogrid[: shape[0], : shape[1], : shape[2]]
    places = []
    for row in matrix[:3]:
        place = row[3] + sum(step * axis for step, axis in zip(row[:3], axes, strict=True) if step)
        if displacement is not None:
            place = place + np.tensordot(row[:3], displacement, axes=1)
        places.append(place.astype(np.float32))
    return places


# 64 MiB of single precision.
_MAX_SLAB_VOXELS = 2**24


def block_mean(array: NDArray[np.generic], block: NDArray[np.int_]) -> NDArray[np.float32]:
    """Average over blocks of voxels; an incomplete block at the end repeats the last voxel."""
    # Some slices after the others: a large scan is not in memory a second time.
    size = int(block[0])
    rise = size * max(1, _MAX_SLAB_VOXELS // max(array[:size].size, 1))
    slabs = [array[start : start + rise] for start in range(0, len(array), rise)]
    return np.concatenate([_mean_of_blocks(slab.astype(np.float32), block) for slab in slabs])


def _mean_of_blocks(values: NDArray[np.float32], block: NDArray[np.int_]) -> NDArray[np.float32]:
    for axis, size in enumerate(block.tolist()):
        if size == 1:
            continue
        missing = -values.shape[axis] % size
        if missing:
            width = [(0, 0)] * 3
            width[axis] = (0, missing)
            values = np.pad(values, width, mode="edge")
        split = (
            *values.shape[:axis],
            values.shape[axis] // size,
            size,
            *values.shape[axis + 1 :],
        )
        values = values.reshape(split).mean(axis=axis + 1)
    return values

"""Boxes of voxels: half-open, and free to overhang the volume they are taken from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VoxelBox:
    """All voxels with start <= index < stop, per array axis (d, h, w)."""

    start_dhw: tuple[int, int, int]
    stop_dhw: tuple[int, int, int]

    @property
    def shape_dhw(self) -> tuple[int, int, int]:
        """Number of voxels per axis; 0 where the box is empty."""
        d, h, w = (max(b - a, 0) for a, b in zip(self.start_dhw, self.stop_dhw, strict=True))
        return (d, h, w)

    @property
    def is_empty(self) -> bool:
        """Tell whether no voxel is inside."""
        return min(self.shape_dhw) == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array; only for boxes that do not overhang (see `clip`)."""
        d, h, w = (slice(a, b) for a, b in zip(self.start_dhw, self.stop_dhw, strict=True))
        return (d, h, w)

    def clip(self, shape_dhw: tuple[int, int, int]) -> "VoxelBox":
        """Return the part that lies inside an array of this shape; may be empty."""
        start = [min(max(a, 0), n) for a, n in zip(self.start_dhw, shape_dhw, strict=True)]
        stop = [max(min(b, n), a) for a, b, n in zip(start, self.stop_dhw, shape_dhw, strict=True)]
        return VoxelBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def grow(self, margin_voxels: int) -> "VoxelBox":
        """Return the box with this many voxels more on each of its six sides."""
        d, h, w = (a - margin_voxels for a in self.start_dhw)
        e, i, x = (b + margin_voxels for b in self.stop_dhw)
        return VoxelBox((d, h, w), (e, i, x))

    def union(self, other: "VoxelBox") -> "VoxelBox":
        """Return the smallest box that holds both."""
        d, h, w = (min(a, b) for a, b in zip(self.start_dhw, other.start_dhw, strict=True))
        e, i, x = (max(a, b) for a, b in zip(self.stop_dhw, other.stop_dhw, strict=True))
        return VoxelBox((d, h, w), (e, i, x))


def bounding_box(mask: NDArray[np.generic]) -> VoxelBox | None:
    """Return the smallest box around the non-zero voxels of a (D, H, W) array; None without any."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        (hits,) = np.nonzero(mask.any(axis=others))
        if hits.size == 0:
            return None
        bounds.append((int(hits[0]), int(hits[-1]) + 1))
    (d, e), (h, i), (w, x) = bounds
    return VoxelBox((d, h, w), (e, i, x))

"""Boxes of voxels: half-open, and free to overhang the volume they are taken from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clickvol.geometry.coordinates import VoxelPoint


@dataclass(frozen=True, slots=True)
class VoxelBox:
    """All voxels with start <= index < stop, per array axis (d, h, w)."""

    start_dhw: tuple[int, int, int]
    stop_dhw: tuple[int, int, int]

    @classmethod
    def of(cls, start_dhw: ArrayLike, stop_dhw: ArrayLike) -> "VoxelBox":
        """Take two times three whole numbers, (3,) of any real dtype."""
        (d, h, w), (e, i, x) = np.asarray([start_dhw, stop_dhw]).astype(int).tolist()
        return cls((d, h, w), (e, i, x))

    @classmethod
    def whole(cls, shape_dhw: tuple[int, int, int]) -> "VoxelBox":
        """Return the box of all voxels of an array of this shape."""
        return cls((0, 0, 0), shape_dhw)

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
        d, h, w = map(slice, self.start_dhw, self.stop_dhw)
        return (d, h, w)

    @property
    def middle(self) -> VoxelPoint:
        """The position in the middle of the box; between two voxels where a side has an even number."""
        return VoxelPoint.of((np.array(self.start_dhw) + self.stop_dhw) / 2 - 0.5)

    def corners_dhw(self, reach_voxels: float = 0.0) -> NDArray[np.float64]:
        """Return the eight corners, (8, 3) float64 in voxels: the last one varies fastest along w.

        They lie `reach_voxels` outside the centres of the outermost voxels; 0.5 gives the corners of the
        voxels' bodies.
        """
        ends = np.array([self.start_dhw, self.stop_dhw], dtype=np.float64)
        ends += [[-reach_voxels], [reach_voxels - 1]]
        return np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)

    def clip(self, shape_dhw: tuple[int, int, int]) -> "VoxelBox":
        """Return the part that lies inside an array of this shape; may be empty."""
        return self.intersect(VoxelBox.whole(shape_dhw))

    def intersect(self, other: "VoxelBox") -> "VoxelBox":
        """Return the part that lies in both, never outside `other`; may be empty."""
        start = np.clip(self.start_dhw, other.start_dhw, other.stop_dhw)
        return VoxelBox.of(start, np.maximum(np.minimum(self.stop_dhw, other.stop_dhw), start))

    def shift(self, by_dhw: ArrayLike) -> "VoxelBox":
        """Return the box moved by three whole numbers of voxels, of either sign."""
        return VoxelBox.of(np.add(self.start_dhw, by_dhw), np.add(self.stop_dhw, by_dhw))

    def relative_to(self, outer: "VoxelBox") -> "VoxelBox":
        """Return the box in the indices of an array that holds the voxels of `outer` alone."""
        return self.shift(np.negative(outer.start_dhw))

    def grow(self, margin_voxels: int) -> "VoxelBox":
        """Return the box with this many voxels more on each of its six sides."""
        return VoxelBox.of(np.subtract(self.start_dhw, margin_voxels), np.add(self.stop_dhw, margin_voxels))

    def union(self, other: "VoxelBox") -> "VoxelBox":
        """Return the smallest box that holds both."""
        start = np.minimum(self.start_dhw, other.start_dhw)
        return VoxelBox.of(start, np.maximum(self.stop_dhw, other.stop_dhw))


def bounding_box(mask: NDArray[np.generic]) -> VoxelBox | None:
    """Return the smallest box around the non-zero voxels of a (D, H, W) array; None without any."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        (hits,) = np.nonzero(mask.any(axis=others))
        if hits.size == 0:
            return None
        bounds.append((int(hits[0]), int(hits[-1]) + 1))
        # What holds nothing need not be read along the next axis.
        mask = mask[(slice(None),) * axis + (slice(*bounds[-1]),)]
    return VoxelBox.of(*np.transpose(bounds))

"""A mask in little memory, so that the answer to every interaction of a long history can be kept."""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import VoxelPoint


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask as zlib of the bits of its bounding box, in (d, h, w) order: some kB for a tumour."""

    box: VoxelBox | None
    bits: bytes
    num_voxels: int

    @classmethod
    def of(cls, mask: NDArray[np.generic], within: VoxelBox | None = None) -> "PackedMask":
        """Pack a mask (D, H, W); what is not 0 is object, all of it in a box where one is given."""
        if within is not None:
            return cls.of(mask[within.slices]).shift(within.start_dhw)
        box = bounding_box(mask)
        if box is None:
            return EMPTY
        inner = mask[box.slices] != 0
        return cls(box, zlib.compress(np.packbits(inner).tobytes(), level=1), int(inner.sum()))

    def in_box(self) -> NDArray[np.bool_]:
        """Return the voxels of the box: (box shape); (0, 0, 0) for an empty mask."""
        shape = (0, 0, 0) if self.box is None else self.box.shape_dhw
        packed = np.frombuffer(zlib.decompress(self.bits) if self.bits else b"", dtype=np.uint8)
        return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).view(np.bool_)

    def places(self) -> NDArray[np.int_]:
        """Return the object's voxels (d, h, w), in order: (N, 3)."""
        return np.argwhere(self.in_box()) + ((0, 0, 0) if self.box is None else self.box.start_dhw)

    def within(self, box: VoxelBox) -> NDArray[np.bool_]:
        """Return the voxels of another box: (box shape)."""
        inside = np.zeros(box.shape_dhw, dtype=np.bool_)
        shared = None if self.box is None else self.box.intersect(box)
        if self.box is not None and shared is not None and not shared.is_empty:
            inside[shared.relative_to(box).slices] = self.in_box()[shared.relative_to(self.box).slices]
        return inside

    def paint(self, canvas: NDArray[np.generic], value: int) -> None:
        """Write a value into the object's voxels of an array (D, H, W)."""
        if self.box is not None:
            canvas[self.box.slices][self.in_box()] = value

    def without(self, others: Iterable["PackedMask"]) -> "PackedMask":
        """Return what of the object none of the others holds."""
        if self.box is None:
            return self
        kept = self.in_box()
        for other in others:
            kept &= ~other.within(self.box)
        return PackedMask.of(kept).shift(self.box.start_dhw)

    def shift(self, by_dhw: tuple[int, int, int]) -> "PackedMask":
        """Return the mask moved by some voxels."""
        return self if self.box is None else replace(self, box=self.box.shift(by_dhw))

    def full(self, shape_dhw: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Return the mask on its whole grid: (D, H, W)."""
        return self.within(VoxelBox.whole(shape_dhw))

    def with_change(self, change: "PackedMask", *, added: bool) -> "PackedMask":
        """Return the mask with voxels added or removed."""
        if not added:
            return self.without([change])
        if self.box is None or change.box is None:
            return change if self.box is None else self
        whole = self.box.union(change.box)
        return PackedMask.of(self.within(whole) | change.within(whole)).shift(whole.start_dhw)

    def sha256(self) -> str:
        """Return a hash of where the object's voxels are: of its bounding box and the bits in it."""
        if self.box is None:
            return hashlib.sha256(b"empty").hexdigest()
        digest = hashlib.sha256(f"{self.box.start_dhw} {self.box.stop_dhw} ".encode())
        digest.update(zlib.decompress(self.bits))
        return digest.hexdigest()

    def innermost(self) -> VoxelPoint:
        """Return the voxel farthest from the border, the first of several; ValueError for an empty mask."""
        if self.box is None:
            raise ValueError("an empty mask has no innermost voxel")
        depth = ndimage.distance_transform_cdt(np.pad(self.in_box(), 1), metric="chessboard")
        deepest = np.unravel_index(int(depth.argmax()), depth.shape)
        return VoxelPoint.of(np.add(deepest, self.box.grow(1).start_dhw))


EMPTY = PackedMask(None, b"", 0)
"""A mask without a voxel."""


def changed_box(before: PackedMask, after: PackedMask) -> VoxelBox | None:
    """Return the box around the voxels in which two masks differ; None where they are equal."""
    boxes = [mask.box for mask in (before, after) if mask.box is not None]
    if not boxes:
        return None
    both = boxes[0].union(boxes[-1])
    changed = bounding_box(before.within(both) != after.within(both))
    return None if changed is None else changed.shift(both.start_dhw)

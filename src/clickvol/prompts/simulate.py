"""Clicks that a user might make, placed by a known mask: what an evaluation asks with, in 3D and 2D.

A click into the error is the deepest voxel of the largest connected error, in mm, the same every time; in
training (`datasets.device.prompts.random_error_click`) it is any voxel of any error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.errors import ClickError
from clickvol.geometry.box import bounding_box
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL

Voxel = tuple[int, int, int]
Voxels = NDArray[np.int64]

# Which part of the greatest depth still counts as well inside. Chosen: half, as `phantoms.phantom` does.
_INSIDE_SHARE = 0.5

# A click near the edge is at most so far from the next voxel outside. Chosen: a hand's usual imprecision.
_EDGE_MM = 2.0

# Slices thicker than this are pictures (`io.pictures.Picture`), not scans.
_PICTURE_MM = 1000.0

# A click that just misses the object. Chosen: 2 to 5 mm from the nearest voxel of the object.
_OUTSIDE_MM = (2.0, 5.0)

# Depths that differ by less are the same; far below any spacing, far above rounding.
_EQUAL_MM = 1e-6

# Neighbours by face, edge and corner, as lesions are counted in the scores.
_NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Some voxels of a scan, and the box around them.

    Attributes:
        start_dhw: voxel of the scan at index (0, 0, 0) of `inside`; -1 where the region touches the first
            plane, since there is one empty voxel on every side.
        inside: (D', H', W') bool, the box around the region and one empty voxel on every side. What lies
            beyond the scan therefore counts as outside.
    """

    start_dhw: Voxel
    inside: NDArray[np.bool_]
    num_voxels: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_], start_dhw: Voxel = (0, 0, 0)) -> "Region | None":
        """Take the voxels of a mask (D, H, W) that begins at a voxel of the scan; None for an empty mask."""
        box = bounding_box(mask)
        if box is None:
            return None
        padded = np.pad(mask[box.slices], 1)
        d, h, w = (a + b - 1 for a, b in zip(start_dhw, box.start_dhw, strict=True))
        return cls((d, h, w), padded, int(np.count_nonzero(padded)))

    def voxels(self, chosen: NDArray[np.bool_]) -> Voxels:
        """Return the voxels of the scan, (N, 3), where an array like `inside` is true."""
        voxels: Voxels = np.argwhere(chosen) + np.array(self.start_dhw)
        return voxels

    def depth_mm(self, spacing_dhw_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far every voxel is from the centre of the next one outside, like `inside`."""
        depth: NDArray[np.float64] = ndimage.distance_transform_edt(self.inside, sampling=spacing_dhw_mm)
        return depth


def components(region: Region) -> list[Region]:
    """Return the connected parts (26 neighbours), the largest first; of equals the first in the array."""
    labels, count = ndimage.label(region.inside, structure=_NEIGHBOURS_26)
    parts = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        d, h, w = (a + side.start for a, side in zip(region.start_dhw, box, strict=True))
        part = Region.of(labels[box] == number, (d, h, w)) if count else None
        if part is not None:
            parts.append(part)
    return sorted(parts, key=lambda part: -part.num_voxels)


def deepest_voxel(
    region: Region, spacing_dhw_mm: NDArray[np.float64], earlier: Iterable[Voxel] = ()
) -> Voxel | None:
    """Return the voxel of a connected part that is farthest, in mm, from outside and from earlier clicks.

    Those count as outside, so that they are never returned again, and what is near them is not deep. Of equally
    deep voxels it is the one nearest to their mean, and of those the first in the array; None where every voxel
    was clicked.
    """
    free = region.inside.copy()
    shape = np.array(free.shape)
    for voxel in earlier:
        index = np.array(voxel) - region.start_dhw
        if (index >= 0).all() and (index < shape).all():
            free[tuple(index)] = False
    if not free.any():
        return None
    depth = ndimage.distance_transform_edt(free, sampling=spacing_dhw_mm)
    equal = np.argwhere(depth >= depth.max() - _EQUAL_MM)
    off_mean_mm = (equal - equal.mean(axis=0)) * spacing_dhw_mm
    d, h, w = (equal[(off_mean_mm**2).sum(axis=1).round(6).argmin()] + region.start_dhw).tolist()
    return (d, h, w)


def inside_voxels(region: Region, spacing_dhw_mm: NDArray[np.float64]) -> Voxels:
    """Return the voxels at least half as deep as the deepest one, (N, 3)."""
    depth = region.depth_mm(spacing_dhw_mm)
    return region.voxels(depth >= _INSIDE_SHARE * depth.max())


def edge_voxels(region: Region, spacing_dhw_mm: NDArray[np.float64]) -> Voxels:
    """Return the voxels that have a face to the outside, or are at most 2 mm from it, (N, 3)."""
    faces = ndimage.generate_binary_structure(3, 1)
    faces[[0, 2]] &= spacing_dhw_mm[0] < _PICTURE_MM  # a picture has none in front and behind
    face = region.inside & ~ndimage.binary_erosion(region.inside, faces)
    near = region.inside & (region.depth_mm(spacing_dhw_mm) <= _EDGE_MM)
    return region.voxels(face | near)


def outside_voxels(region: Region, spacing_dhw_mm: NDArray[np.float64], shape_dhw: Voxel) -> Voxels:
    """Return the voxels of the scan that are 2 to 5 mm from the region, (N, 3).

    Where the voxels are so large that none is (or the scan ends there), the nearest ones beyond 2 mm; none
    where the region fills the scan.
    """
    margin = np.ceil(_OUTSIDE_MM[1] / spacing_dhw_mm).astype(int) + 1
    wide = np.pad(region.inside, [(int(m), int(m)) for m in margin])
    start = np.array(region.start_dhw) - margin
    distance = ndimage.distance_transform_edt(~wide, sampling=spacing_dhw_mm)
    for axis, size in enumerate(shape_dhw):
        index = np.arange(wide.shape[axis]) + start[axis]
        beyond = (index < 0) | (index >= size)
        distance[(slice(None),) * axis + (beyond,)] = 0.0
    low, high = _OUTSIDE_MM
    chosen = (distance >= low) & (distance <= high)
    if not chosen.any() and (distance >= low).any():
        chosen = distance == distance[distance >= low].min()
    voxels: Voxels = np.argwhere(chosen) + start
    return voxels


@dataclass(frozen=True, slots=True)
class ErrorClick:
    """A click into what a mask missed (foreground) or has too much, and the voxels of that error."""

    voxel_dhw: Voxel
    foreground: bool
    region_voxels: int


def largest_error_click(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_dhw_mm: NDArray[np.float64],
    earlier: Iterable[Voxel] = (),
) -> ErrorClick | None:
    """Return the error click of evaluation: the deepest voxel, in mm, of the largest connected error.

    An earlier click counts as the border of an error: the next one is far from it, and never the same, also
    where the mask did not move. Where all voxels of the largest error were clicked, the next largest follows;
    of equally large errors the missed one. None where nothing is wrong, or every wrong voxel was clicked
    already.
    """
    earlier = tuple(earlier)
    for foreground, part in _errors(predicted, truth):
        voxel = deepest_voxel(part, spacing_dhw_mm, earlier)
        if voxel is not None:
            return ErrorClick(voxel, foreground, part.num_voxels)
    return None


def _errors(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Iterator[tuple[bool, Region]]:
    """Yield connected errors, the largest first; of equals the missed ones first."""
    parts = []
    for foreground, wrong in ((True, truth & ~predicted), (False, predicted & ~truth)):
        region = Region.of(wrong)
        if region is not None:
            parts += [(foreground, part) for part in components(region)]
    yield from sorted(parts, key=lambda entry: -entry[1].num_voxels)


def num_positive_points(num_points: int) -> int:
    """Return how many of N points lie in the object: floor(N / 2), but one of one.

    The rule of the released ProMISe-2D code, for points drawn and for points predicted.
    """
    return 1 if num_points == 1 else num_points // 2


def sample_points(
    mask: NDArray[np.bool_], num_points: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw N points in the object and outside it, uniformly and with replacement, in random order.

    The first `num_positive_points` are drawn in the object, the rest outside it; then they are shuffled.
    Where the object is empty all points are drawn outside it, and where it fills the image all are drawn in
    it (the released code fails on empty masks; the second rule is its mirror image). A label therefore
    always tells what lies under its point.

    Returns:
        (N, 2) pixel centres in the order (x, y), integers as float, x in [0, W), y in [0, H); and (N,)
        labels, 1 in the object and 0 outside it.

    Raises:
        ClickError: for a mask without pixels or not two-dimensional, or fewer than one point.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ClickError(f"the mask has shape {mask.shape}, but points are drawn from one (H, W) with pixels")
    if num_points < 1:
        raise ClickError(f"{num_points} points were asked for; ask for at least 1")
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    num_inside = num_positive_points(num_points)
    if len(inside) == 0:
        num_inside = 0
    elif len(outside) == 0:
        num_inside = num_points
    chosen = np.concatenate(
        [
            _draw(inside, num_inside, rng),
            _draw(outside, num_points - num_inside, rng),
        ]
    )
    chosen = rng.permutation(chosen)
    row, column = np.unravel_index(chosen, mask.shape)
    labels = np.where(mask.reshape(-1)[chosen], FOREGROUND_LABEL, BACKGROUND_LABEL)
    return np.stack([column, row], axis=1).astype(np.float64), labels.astype(np.int64)


def _draw(candidates: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of the candidates, with replacement; none of none."""
    if number == 0:
        return candidates[:0]
    return candidates[rng.integers(len(candidates), size=number)]

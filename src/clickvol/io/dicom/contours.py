"""A mask of one slice as closed polygons, and closed polygons as a mask.

Positions are (h, w) in voxels of the slice; an integer is the centre of a voxel. The polygons run along the
borders between voxels, half a voxel from every centre, so that they enclose exactly the area of the mask, and
any rasteriser that asks which centres lie inside gives the same mask again, whatever its rule for points on a
line.

A hole is joined to what surrounds it by a channel of no width (the keyhole of DICOM PS3.3, C.8.8.6.3), also
along the borders of voxels. A polygon then needs no other one to be understood: programs that unite the
polygons of a slice, and programs that take odd and even (XOR), see the same.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_Corner = tuple[int, int]
"""Row and column of a corner between four voxels: corner (r, c) is the position (r - 0.5, c - 0.5)."""


def mask_contours(mask: NDArray[np.generic]) -> list[NDArray[np.float64]]:
    """Return a polygon (N, 2) of (h, w) for each part of a mask (H, W) whose voxels share sides.

    They come in the order of their first voxel, not closed by a repeated point, clockwise as the array is
    printed.
    """
    inside = np.asarray(mask) != 0
    padded = np.pad(inside, 1)
    parts, num_parts = ndimage.label(padded)
    outlines: list[list[_Corner]] = [[] for _ in range(num_parts)]
    for loop in _loops(padded):
        row, column = loop[0]
        is_outline = bool(padded[row + 1, column + 1])
        part = int(parts[row + 1, column + 1] if is_outline else parts[row, column + 1])
        if is_outline:
            outlines[part - 1] = loop
        else:
            outlines[part - 1] = _with_hole(outlines[part - 1], loop, padded)
    return [_turning_points(loop) - 0.5 for loop in outlines]


def contours_mask(polygons: Iterable[NDArray[np.floating]], shape_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which voxel centres (H, W) lie inside polygons (N, 2) of (h, w) an odd number of times.

    Polygons are closed or not, and may reach beyond the slice. A centre on an edge counts as inside where the
    object lies to its right or below.
    """
    num_h, num_w = shape_hw
    crossings = np.zeros((num_h, num_w + 1), dtype=np.int64)
    for polygon in polygons:
        _count_crossings(np.asarray(polygon, dtype=np.float64), crossings)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :num_w] % 2 == 1)


def _count_crossings(polygon: NDArray[np.float64], crossings: NDArray[np.int64]) -> None:
    """Add 1 at the first voxel of each row behind each crossing of the polygon."""
    num_h, num_w = crossings.shape[0], crossings.shape[1] - 1
    start, end = polygon, np.roll(polygon, -1, axis=0)
    upper = np.where((start[:, 0] <= end[:, 0])[:, np.newaxis], start, end)
    lower = np.where((start[:, 0] <= end[:, 0])[:, np.newaxis], end, start)
    # Half-open, upper end in and lower end out: a corner of the polygon counts once, a level edge never.
    first = np.clip(np.ceil(upper[:, 0]), 0, num_h).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 0]), 0, num_h).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(polygon)), counts)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    fraction = (rows - upper[edge, 0]) / (lower[edge, 0] - upper[edge, 0])
    columns = upper[edge, 1] + fraction * (lower[edge, 1] - upper[edge, 1])
    behind = np.clip(np.ceil(columns), 0, num_w).astype(np.int64)
    np.add.at(crossings, (rows, behind), 1)


def _loops(padded: NDArray[np.bool_]) -> list[list[_Corner]]:
    """Follow the borders of an object with the object on the right, one voxel side after the other.

    The mask (H + 2, W + 2) is False at its edge. Each loop begins at its first corner from the top, then from
    the left, and they are in the order of these: the outline of a part comes before its holes, and a hole
    before those below it. Where two voxels touch at a corner only, a loop stays with its voxel.
    """
    following: dict[_Corner, list[_Corner]] = {}
    signed = padded.astype(np.int8)
    change_h = (signed[1:] - signed[:-1])[:, 1:-1]
    change_w = (signed[:, 1:] - signed[:, :-1])[1:-1, :]
    for start, end in _sides(change_h, change_w):
        following.setdefault(start, []).append(end)
    loops = []
    for first in sorted(following):
        while following[first]:
            loop = [first]
            corner = following[first].pop()
            previous = first
            while corner != first or _goes_on(previous, corner, following):
                loop.append(corner)
                previous, corner = corner, _step(previous, corner, following)
            loops.append(loop)
    return loops


def _sides(change_h: NDArray[np.int8], change_w: NDArray[np.int8]) -> Iterable[tuple[_Corner, _Corner]]:
    """Yield the sides between object and background, as steps with the object on the right."""
    for row, column in np.argwhere(change_h == 1).tolist():  # the object lies below
        yield (row, column), (row, column + 1)
    for row, column in np.argwhere(change_h == -1).tolist():
        yield (row, column + 1), (row, column)
    for row, column in np.argwhere(change_w == 1).tolist():  # the object lies to the right
        yield (row + 1, column), (row, column)
    for row, column in np.argwhere(change_w == -1).tolist():
        yield (row, column), (row + 1, column)


def _right_turn(previous: _Corner, corner: _Corner) -> _Corner:
    step_r, step_c = corner[0] - previous[0], corner[1] - previous[1]
    return (corner[0] + step_c, corner[1] - step_r)


def _goes_on(previous: _Corner, corner: _Corner, following: dict[_Corner, list[_Corner]]) -> bool:
    """Tell whether a loop that is back at its first corner passes it on its way a second time."""
    return _right_turn(previous, corner) in following[corner]


def _step(previous: _Corner, corner: _Corner, following: dict[_Corner, list[_Corner]]) -> _Corner:
    """Take the way out of a corner, the one to the right where there are two."""
    ways = following[corner]
    right = _right_turn(previous, corner)
    way = right if right in ways else ways[0]
    ways.remove(way)
    return way


def _with_hole(outline: list[_Corner], hole: list[_Corner], padded: NDArray[np.bool_]) -> list[_Corner]:
    """Join a hole to the outline by a channel straight up from the hole's topmost corner."""
    row, column = hole[0]
    channel = [(row, column)]
    row -= 1
    while padded[row : row + 2, column : column + 2].all():
        channel.append((row, column))
        row -= 1
    at = outline.index((row, column))
    return [*outline[: at + 1], *channel[:0:-1], *hole, *channel, *outline[at:]]


def _turning_points(loop: Sequence[_Corner]) -> NDArray[np.float64]:
    """Return the corners (N, 2) at which a loop changes its direction."""
    corners = np.array(loop, dtype=np.float64)
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    return np.asarray(corners[(before != after).any(axis=1)])

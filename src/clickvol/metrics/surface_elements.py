"""The piece of surface between the eight voxels around a corner, and how large it is.

Marching cubes on a mask: eight neighbouring voxels are the corners of a cube, and the surface cuts
each edge whose ends differ in the middle (W. Lorensen and H. Cline, Marching cubes, SIGGRAPH 1987).
The pieces here are those of the surface-distance package of DeepMind (S. Nikolov et al., Clinically
applicable segmentation of head and neck anatomy, 2021), but computed instead of listed:

* On a face that has two equal corners across, the corners of the rarer kind of the cube are cut off one by one.
* Of the ways to cut a bent piece into triangles, the one with the largest area in a cubic voxel.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

_Corner = tuple[int, int, int]
_Triangle = tuple[_Corner, _Corner, _Corner]

_CORNERS: tuple[_Corner, ...] = tuple((a, b, c) for a, b, c in product((0, 1), repeat=3))

NUM_CODES = 256
"""Ways in which eight voxels can be inside or outside."""

# Four voxels inside that do not touch cut off four corners; no other code has more triangles.
_MOST_TRIANGLES = 4


def neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return which of the eight voxels around each corner of a mask (D, H, W) are inside.

    (D + 1, H + 1, W + 1): the corner before voxel (d, h, w) on all axes has index (d, h, w). Bit 4a + 2b + c
    stands for voxel (d - 1 + a, h - 1 + b, w - 1 + c); outside of the array is outside of the object. 0 and 255
    are no surface.
    """
    depth, height, width = (n + 1 for n in mask.shape)
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros((depth, height, width), np.uint8)
    for bit, (a, b, c) in enumerate(product((0, 1), repeat=3)):
        codes |= padded[a : a + depth, b : b + height, c : c + width] << np.uint8(bit)
    return codes


def element_areas_mm2(spacing_dhw_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the area of the surface in each code of `neighbour_codes`, (256,) in mm²; 0 for 0 and 255."""
    d, h, w = spacing_dhw_mm
    # A cross product grows on each axis with the spacings of the other two.
    normals = _unit_normals() * np.array([h * w, d * w, d * h])
    return np.asarray(np.linalg.norm(normals, axis=2).sum(axis=1) / 2)


@cache
def _unit_normals() -> NDArray[np.float64]:
    """Return the cross product of two sides of every triangle, (256, 4, 3), in a cubic voxel."""
    normals = np.zeros((NUM_CODES, _MOST_TRIANGLES, 3))
    for code in range(1, NUM_CODES - 1):
        inside = _inside(code)
        rarer = inside if len(inside) <= len(_CORNERS) // 2 else set(_CORNERS) - inside
        triangles = [t for loop in _cut_loops(rarer) for t in _largest_triangulation(loop)]
        for number, triangle in enumerate(triangles):
            normals[code, number] = _normal(triangle)
    normals.setflags(write=False)
    return normals


@cache
def closed_triangles(code: int) -> NDArray[np.int64]:
    """Return the surface in a code of `neighbour_codes` as it fits those of its neighbours, whatever they are.

    On a face that has two equal corners across, those inside are cut off one by one. (N, 3, 3): the corners of
    its triangles in half voxels from the first of the eight voxels; seen from outside they go counterclockwise
    where the axes are right-handed.
    """
    triangles = [t for loop in _cut_loops(_inside(code)) for t in _largest_triangulation(loop)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3, 3)


def _inside(code: int) -> set[_Corner]:
    return {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}


def _cut_loops(inside: set[_Corner]) -> list[list[_Corner]]:
    """Return the closed lines along which the surface cuts the faces of the cube.

    A point of a line is the middle of an edge in half edges: the sum of the edge's two corners.
    """
    following: dict[_Corner, _Corner] = {}
    for axis, side in product(range(3), (0, 1)):
        ring = _face(axis, side)
        for start in range(4):
            if ring[start] not in inside or ring[start - 1] in inside:
                continue
            end = start
            while ring[(end + 1) % 4] in inside:
                end += 1
            first = _middle(ring[start - 1], ring[start])
            following[first] = _middle(ring[end % 4], ring[(end + 1) % 4])
    loops = []
    while following:
        point, successor = following.popitem()
        loop = [point]
        while successor != loop[0]:
            loop.append(successor)
            successor = following.pop(successor)
        loops.append(loop)
    return loops


def _face(axis: int, side: int) -> list[_Corner]:
    """Return the four corners of a face, counterclockwise seen from outside of the cube."""
    ring = []
    for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
        corner = [side, side, side]
        corner[(axis + 1) % 3], corner[(axis + 2) % 3] = u, v
        ring.append((corner[0], corner[1], corner[2]))
    return ring if side else ring[::-1]


def _middle(one: _Corner, other: _Corner) -> _Corner:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _largest_triangulation(loop: list[_Corner]) -> list[_Triangle]:
    return max(
        _triangulations(loop),
        key=lambda triangles: sum(float(np.linalg.norm(_normal(t))) for t in triangles),
    )


def _triangulations(loop: list[_Corner]) -> Iterator[list[_Triangle]]:
    """Yield every way to cut a polygon into triangles between its corners."""
    if len(loop) < 3:
        yield []
        return
    for k in range(1, len(loop) - 1):
        for before, after in product(list(_triangulations(loop[: k + 1])), list(_triangulations(loop[k:]))):
            yield [*before, *after, (loop[0], loop[k], loop[-1])]


def _normal(triangle: _Triangle) -> NDArray[np.float64]:
    a, b, c = np.array(triangle) / 2
    return np.asarray(np.cross(b - a, c - a))

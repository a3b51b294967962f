"""Distances between the surfaces of two masks, in the definition of DeepMind's surface-distance.

The surface consists of one element at every corner of voxels that has voxels of both kinds around it. An
element counts with its area, lies at its corner, and its distance is the one to the nearest element of the
other surface. Outside of the array is outside of the object, so a mask that touches the border has a surface
there.

An element is the piece of surface between eight voxels, by marching cubes on a mask: the voxels are the corners
of a cube, and the surface cuts each edge whose ends differ in the middle (W. Lorensen and H. Cline, Marching
cubes, SIGGRAPH 1987). The pieces are those of the surface-distance package (S. Nikolov et al., Clinically
applicable segmentation of head and neck anatomy, 2021), but computed instead of listed:

* On a face that has two equal corners across, the corners of the rarer kind of the cube are cut off one by one.
* Of the ways to cut a bent piece into triangles, the one with the largest area in a cubic voxel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from clickvol.geometry.box import bounding_box

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


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """How far each element of a surface, with its area, is from the other; None for an empty mask."""

    from_prediction_mm: NDArray[np.float64] | None
    from_truth_mm: NDArray[np.float64] | None
    prediction_areas_mm2: NDArray[np.float64]
    truth_areas_mm2: NDArray[np.float64]

    def nsd(self, tolerance_mm: float) -> float:
        """Return the normalised surface Dice: the share of both surfaces within the tolerance of the other.

        Two empty masks: 1.0. One empty mask: 0.0.
        """
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return 0.0 if self.prediction_areas_mm2.size or self.truth_areas_mm2.size else 1.0
        near = self.prediction_areas_mm2[self.from_prediction_mm <= tolerance_mm].sum()
        near += self.truth_areas_mm2[self.from_truth_mm <= tolerance_mm].sum()
        return float(near / (self.prediction_areas_mm2.sum() + self.truth_areas_mm2.sum()))

    def hausdorff_mm(self, percent: float = 95.0) -> float | None:
        """Return the robust Hausdorff distance: 95 gives HD95, 100 the plain one; None for an empty mask.

        Per surface, the smallest distance within which at least this share of its area lies; of the
        two surfaces, the larger. Definitions that count elements instead of area differ.
        """
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return None
        return max(
            _distance_of_share(self.from_prediction_mm, self.prediction_areas_mm2, percent / 100),
            _distance_of_share(self.from_truth_mm, self.truth_areas_mm2, percent / 100),
        )

    def average_mm(self) -> float | None:
        """Return the mean distance over the area of both surfaces (ASSD); None where one mask is empty."""
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return None
        weighted = self.from_prediction_mm @ self.prediction_areas_mm2
        weighted += self.from_truth_mm @ self.truth_areas_mm2
        return float(weighted / (self.prediction_areas_mm2.sum() + self.truth_areas_mm2.sum()))


def surface_distances(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    spacing_dhw_mm: Sequence[float] | NDArray[np.float64],
) -> SurfaceDistances:
    """Measure how far the surfaces of two masks (D, H, W) are from each other.

    Each mask is cropped to what is in it, so the time depends on the object and not on the scan. ValueError
    when the shapes differ or are not of three axes, or the spacing is not three numbers above 0.
    """
    if prediction.shape != truth.shape or prediction.ndim != 3:
        raise ValueError(
            f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal and of three axes"
        )
    spacing = np.asarray(spacing_dhw_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"the spacing must be three numbers of mm above 0, not {spacing_dhw_mm}")
    predicted_corners, predicted_areas = _surface(prediction, spacing)
    true_corners, true_areas = _surface(truth, spacing)
    both = predicted_areas.size > 0 and true_areas.size > 0
    return SurfaceDistances(
        from_prediction_mm=_nearest_mm(predicted_corners, true_corners, spacing) if both else None,
        from_truth_mm=_nearest_mm(true_corners, predicted_corners, spacing) if both else None,
        prediction_areas_mm2=predicted_areas,
        truth_areas_mm2=true_areas,
    )


def _surface(
    mask: NDArray[np.generic], spacing_mm: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the elements of a surface: corners (n, 3), counted from the array's first, and areas (n,)."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    codes = neighbour_codes(mask[box.slices] != 0)
    corners = np.argwhere((codes != 0) & (codes != NUM_CODES - 1))
    d, h, w = map(float, spacing_mm)
    return corners + box.start_dhw, element_areas_mm2((d, h, w))[codes[tuple(corners.T)]]


def _nearest_mm(
    corners: NDArray[np.int64], others: NDArray[np.int64], spacing_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance (n,) from each corner (n, 3) to the nearest of the others (m, 3)."""
    _, nearest = KDTree(others * spacing_mm).query(corners * spacing_mm)
    # From whole steps: a distance of five voxels of 0.2 mm is 1 mm, wherever they lie in the scan.
    return np.asarray(np.linalg.norm((corners - others[nearest]) * spacing_mm, axis=1))


def _distance_of_share(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64], share: float
) -> float:
    order = np.argsort(distances_mm)
    covered = np.cumsum(areas_mm2[order]) / areas_mm2.sum()
    # Rounding may leave the last sum just below a share of one.
    return float(distances_mm[order[min(int(np.searchsorted(covered, share)), len(order) - 1)]])

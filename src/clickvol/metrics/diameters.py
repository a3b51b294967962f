"""The longest diameter of an object, in space and on a slice, as a reader would measure it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from clickvol.geometry.grid import VolumeGrid


@dataclass(frozen=True, slots=True, eq=False)
class Diameter:
    """A distance between the centres of two voxels (2, 3) of an object."""

    mm: float
    ends_dhw: NDArray[np.int64]


def longest_diameters(mask: NDArray[np.generic], grid: VolumeGrid) -> tuple[Diameter, Diameter] | None:
    """Return the longest diameter of an object (D, H, W) in space, and the longest on any one slice.

    From voxel centre to voxel centre; 0 mm for a single voxel. None for an empty mask.
    """
    best: Diameter | None = None
    outermost = []
    for d in np.flatnonzero(np.any(mask, axis=(1, 2))).tolist():
        plane = _outermost(np.argwhere(mask[d]))
        voxels = np.insert(plane, 0, d, axis=1)
        outermost.append(voxels)
        here = _longest(voxels, grid)
        best = here if best is None or here.mm > best.mm else best
    if best is None:
        return None
    # The hull in space has its corners among those of the hulls on slices.
    return _longest(_outermost(np.concatenate(outermost)), grid), best


def _outermost(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the corners of the convex hull; where they lie on a line or a plane, all of them."""
    try:
        return np.asarray(places[ConvexHull(places).vertices])
    except (QhullError, ValueError):
        return places


def _longest(voxels: NDArray[np.int64], grid: VolumeGrid) -> Diameter:
    distances = squareform(pdist(grid.world_positions(voxels)))
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    return Diameter(float(distances[first, second]), voxels[[first, second]])

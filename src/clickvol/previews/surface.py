"""The surface of a mask as STL, for printers and planning programs."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clickvol.errors import OutputError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.box import bounding_box
from clickvol.io.volume import Mask
from clickvol.metrics.surface import NUM_CODES, closed_triangles, neighbour_codes

# Taubin 1995: what a step flattens the next one swells again, so that the object keeps its size.
_SHRINK, _SWELL, _NUM_STEPS = 0.5, -0.53, 10

_HEADER = b"clickvol surface SPACE=RAS UNIT=mm"


def surface_of(mask: Mask, *, is_smooth: bool = True) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the closed surface of a mask, by marching cubes; OutputError when it is empty.

    Smooth, the steps of the voxels are taken away; the volume stays within some per cent.

    Returns:
        Corners (N, 3) in RAS mm, and triangles (M, 3) of their numbers, counterclockwise seen from outside.
    """
    box = bounding_box(mask.array)
    if box is None:
        raise OutputError("the object has no voxel, so it has no surface; click first")
    codes = neighbour_codes(mask.array[box.slices] != 0)
    pieces = []
    for code in np.unique(codes[(codes > 0) & (codes < NUM_CODES - 1)]).tolist():
        places = np.argwhere(codes == code)
        # In half voxels, from the first voxel of the box.
        pieces.append((2 * (places - 1)[:, None, None, :] + closed_triangles(code)).reshape(-1, 3))
    corners, numbers = np.unique(np.concatenate(pieces), axis=0, return_inverse=True)
    triangles = numbers.reshape(-1, 3)
    places_ras_mm = mask.grid.world_positions(corners / 2 + box.start_dhw)
    if not mask.grid.is_right_handed:
        triangles = triangles[:, ::-1]
    return (_smoothed(places_ras_mm, triangles) if is_smooth else places_ras_mm), triangles


def write_stl(mask: Mask, path: Path) -> None:
    """Write the surface of a mask as binary STL in RAS mm, which its header says; errors as `surface_of`."""
    corners, triangles = surface_of(mask)
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    facets = np.zeros(len(triangles), dtype=record)
    facets["corners"] = corners[triangles]
    a, b, c = np.moveaxis(corners[triangles], 1, 0)
    normals = np.cross(b - a, c - a)
    facets["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    with atomic_path(path, ".stl") as temporary, temporary.open("wb") as file:
        file.write(_HEADER.ljust(80, b" ") + np.uint32(len(facets)).tobytes() + facets.tobytes())


def _smoothed(places: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    first, second = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    near = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(len(places),) * 2).tocsr()
    near = near + near.T
    weights = sparse.diags_array(1 / near.sum(axis=1))
    for step in range(2 * _NUM_STEPS):
        factor = _SWELL if step % 2 else _SHRINK
        places = places + factor * (weights @ (near @ places) - places)
    return places

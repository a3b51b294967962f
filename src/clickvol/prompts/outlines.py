"""Where a prompt is drawn in a picture: a few places in the patient."""

import numpy as np
from scipy import ndimage

from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Prompt, Scribble

_MAX_PLACES = 400  # enough for a stroke across a slice


def outline_of(prompt: Prompt, grid: VolumeGrid) -> list[WorldPointRAS]:
    """Return the places by which a checked prompt is drawn.

    Of a click its place; of a line both ends; of a box two opposite corners, at the outer faces of its
    voxels; of a scribble its voxels, of a lasso those at the border of its area, 400 at most; of a given
    mask none.
    """
    match prompt:
        case Click():
            return [prompt.world(grid)]
        case Line():
            return list(prompt.ends(grid))
        case Box():
            bounds = prompt.voxel_box(grid)
            corners = np.array([bounds.start_dhw, bounds.stop_dhw]) - 0.5
            return [grid.to_world(VoxelPoint.of(corner)) for corner in corners]
        case GivenMask():
            return []
        case Scribble() | Lasso():
            drawn, box = prompt.voxels.in_box(), prompt.voxels.box
    if box is None:
        return []
    if isinstance(prompt, Lasso):
        # On a slice: across it every voxel would be at the border.
        across = [0 if length == 1 else 1 for length in drawn.shape]
        padded = np.pad(drawn, [(n, n) for n in across])
        inner = ndimage.binary_erosion(padded, np.ones([1 + 2 * n for n in across]))
        own = tuple(slice(n, n + length) for n, length in zip(across, drawn.shape, strict=True))
        drawn = drawn & ~inner[own]
    voxels = np.argwhere(drawn) + box.start_dhw
    chosen = np.linspace(0, len(voxels) - 1, min(len(voxels), _MAX_PLACES)).round().astype(int)
    return [grid.to_world(VoxelPoint.of(voxel)) for voxel in voxels[chosen].tolist()]

"""Lines, boxes, lassos and scribbles drawn as maps on a patch, as the training draws them.

The training (`datasets/device/prompts.py`) draws on the patch of an object that it knows; here the prompts lie
in the scan, and a patch voxel asks where it is. A test compares the two.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from clickvol.prompts.spatial import NUM_HINTS, Box, HintChannel, Lasso, Line, Prompt, Scribble

Array32 = NDArray[np.float32]

# In patch voxels, as in training: a diameter is a Gaussian tube, a slice the planes up to one voxel from it.
_TUBE_RADIUS = 1.5
_SLICE_REACH = 1.0
_STROKE_RADIUS = 1.2


def draw_hints(prompts: Sequence[Prompt], field: FieldOfView, grid: VolumeGrid) -> Array32:
    """Draw checked prompts on a patch; clicks and given masks are not drawn.

    (NUM_HINTS, D, H, W) in [-1, 1], see `HintChannel`; where two prompts of a kind meet, the later counts.
    """
    maps = np.zeros((NUM_HINTS, *field.shape_dhw), dtype=np.float32)
    for prompt in prompts:
        match prompt:
            case Line():
                channel = maps[HintChannel.DIAMETER]
                np.maximum(channel, _tube(prompt, field, grid), out=channel)
            case Box() | Lasso():
                channel, (said, inside) = maps[HintChannel.REGION], region_on(prompt, field.grid(), grid)
                if not prompt.foreground:
                    channel[said & inside] = -1
                else:
                    channel[said] = np.where(inside, 1, -1)[said]
            case Scribble():
                maps[HintChannel.SCRIBBLE][_stroke(prompt, field, grid)] = 1 if prompt.foreground else -1
    return maps


def _tube(line: Line, field: FieldOfView, grid: VolumeGrid) -> Array32:
    start, stop = (field.to_patch(end).as_array() for end in line.ends(grid))
    over = stop - start
    places = np.moveaxis(np.indices(field.shape_dhw, dtype=np.float32), 0, -1) - start
    part = np.clip(places @ over / float(over @ over), 0, 1)
    squared = ((places - part[..., None] * over) ** 2).sum(axis=-1)
    drawn: Array32 = np.exp(-squared / (2 * _TUBE_RADIUS**2)).astype(np.float32)
    return drawn


def region_on(
    prompt: Box | Lasso, patch_grid: VolumeGrid, grid: VolumeGrid
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell where a box or lasso says something, and what is inside it: two masks of the patch grid's shape.

    A region on one slice says nothing of others, but for those up to one patch voxel from it.
    """
    box = prompt.voxel_box(grid)
    to_scan = patch_grid.voxel_matrix_to(grid)
    axes = np.ogrid[tuple(slice(0, n) for n in patch_grid.shape_dhw)]
    places = [row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3] for row in to_scan[:3]]
    said = np.ones(patch_grid.shape_dhw, dtype=bool)
    inside = np.ones(patch_grid.shape_dhw, dtype=bool)
    flat_axis = box.shape_dhw.index(1) if 1 in box.shape_dhw else None
    nearest = []
    for axis, place in enumerate(places):
        low, high = box.start_dhw[axis], box.stop_dhw[axis] - 1
        if axis == flat_axis:
            reach = max(0.5, _SLICE_REACH * float(np.linalg.norm(to_scan[axis, :3]))) + 1e-6
            said &= np.abs(place - low) <= reach
        else:
            inside &= (place >= low - 0.5) & (place <= high + 0.5)
        nearest.append(np.clip(np.rint(place), low, high).astype(int) - low)
    if isinstance(prompt, Lasso):
        inside &= prompt.voxels.in_box()[tuple(np.broadcast_arrays(*nearest))]
    return said, inside & said


def _stroke(scribble: Scribble, field: FieldOfView, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Return the patch voxels on the stroke: up to 1.2 from it in its plane, up to 1 across."""
    drawn = np.zeros(field.shape_dhw, dtype=bool)
    places = field.grid().voxel_positions(grid.world_positions(scribble.voxels.places()))
    for offset in product((-1, 0, 1), repeat=3):
        near = np.rint(places).astype(int) + offset
        off = near - places
        close = (np.linalg.norm(off[:, 1:], axis=1) < _STROKE_RADIUS) & (np.abs(off[:, 0]) <= 1)
        within = close & ((near >= 0) & (near < field.shape_dhw)).all(axis=1)
        drawn[tuple(near[within].T)] = True
    return drawn

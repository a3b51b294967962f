"""A given mask, changed near the clicks that correct it and nowhere else."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.placed_prompts import WorldClick
from clickvol.predict.segmentation import THRESHOLD, ScanProbability

# A click changes the mask up to so many times as far as the border is, and at least so many millimetres.
_REACH = 2.0
_LEAST_REACH_MM = 5.0


def corrected_near_clicks(
    given: NDArray[np.bool_], result: ScanProbability, clicks: Sequence[WorldClick], grid: VolumeGrid
) -> ScanProbability:
    """Lay an answer over a given mask (D, H, W), only where a click corrects it; the rest stays 0 or 1.

    The clicks are taken one after the other. One that agrees with the mask so far changes nothing. One that
    contradicts it changes the mask within a ball around it, whose radius is twice the click's distance from the
    mask's border, and at least 5 mm: where the answer is on the click's side, and surer of it (0.5 to 1) than
    the voxel is far (0 to 1, the radius).
    """
    own = bounding_box(given)
    box = result.box if own is None else result.box.union(own)
    voxels = [np.rint(grid.to_voxel(click.place).as_array()).astype(int) for click in clicks]
    for voxel in voxels:
        box = box.union(VoxelBox.of(voxel, voxel + 1))
    box = box.clip(grid.shape_dhw)
    answer = np.zeros(box.shape_dhw, dtype=np.float32)
    answer[result.box.relative_to(box).slices] = result.probability
    corrected = given[box.slices].astype(np.float32)
    spacing = grid.spacing_dhw_mm
    for voxel, click in zip(voxels, clicks, strict=True):
        at, before = tuple(voxel - box.start_dhw), corrected > THRESHOLD
        if before[at] == click.foreground:
            continue
        agrees = before == click.foreground
        depth_mm = ndimage.distance_transform_edt(~agrees, sampling=spacing)[at] if agrees.any() else 0.0
        reach_mm = max(_LEAST_REACH_MM, _REACH * depth_mm)
        squared = sum(
            ((axis - place) * step) ** 2
            for axis, place, step in zip(np.ogrid[tuple(map(slice, box.shape_dhw))], at, spacing, strict=True)
        )
        # Only towards what the click says: one inside adds, one outside removes.
        sure = answer if click.foreground else 1 - answer
        changed = sure > np.maximum(THRESHOLD, np.sqrt(squared) / reach_mm)
        corrected[changed] = answer[changed]
        corrected[at] = float(click.foreground)
    return replace(result, box=box, probability=corrected, keeps_all_parts=True)

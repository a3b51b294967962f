"""Samples as the released code of ProMISe-3D, 3DSAM-adapter and TAGS draws them."""

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.datasets.samples import MAX_CLICKS, LabelledVolume, PatchBatch, PatchPrompts
from clickvol.datasets.sampling import PublishedSampling
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.shapes import PADDING_LABEL

_QUARTER_TURN_DH = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def draw_published_sample(
    case: LabelledVolume,
    patch_shape_dhw: tuple[int, int, int],
    config: PublishedSampling,
    rng: np.random.Generator,
    *,
    num_channels: int = 1,
) -> PatchBatch:
    """Draw a batch of one patch without clicks: these methods draw theirs from the label of the patch.

    Outside the scan, the normalised patch is 0.
    """
    place = _centre(case, config, rng)
    if config.border == "inside":
        side_mm = config.voxel_mm * (np.array(patch_shape_dhw) + 2 * config.jitter_voxels)
        place = _moved_inside(place, case.volume.grid, side_mm[::-1])
    jitter_mm = config.voxel_mm * rng.integers(-config.jitter_voxels, config.jitter_voxels, 3, endpoint=True)
    centre = WorldPointRAS.of(place.as_array() + jitter_mm)
    shift = rng.uniform(-config.shift, config.shift) if rng.random() < config.shift_share else 0.0
    field = FieldOfView(centre, config.voxel_mm, patch_shape_dhw)
    grid = _changed(field.grid(), config, rng)
    image = extract(case.volume.array, case.volume.grid, grid, outside_value=case.scale.mean)
    soft = extract(case.label, case.volume.grid, grid, outside_value=0.0)
    inside = extract(np.broadcast_to(np.uint8(1), case.label.shape), case.volume.grid, grid, outside_value=0.0)
    # The released loader clips first and shifts then: a shifted value may lie past the bounds.
    values = case.scale.normalise(image) + np.float32(shift / case.scale.deviation)
    patch = np.where(inside > 0.5, values, np.float32(0))[None]
    if num_channels > 1:
        organ = None
        if case.organ is not None:
            organ = extract(case.organ, case.volume.grid, grid, outside_value=0.0)
        patch = with_organ_channel(patch[0], organ)
    return PatchBatch(
        patch=torch.from_numpy(patch)[None],
        label=torch.from_numpy((soft > 0.5).astype(np.uint8))[None, None],
        prompts=PatchPrompts(
            points_dhw=torch.zeros(1, MAX_CLICKS, 3),
            labels=torch.full((1, MAX_CLICKS), PADDING_LABEL),
            prior=torch.zeros(1, 1, *patch_shape_dhw),
        ),
        noise_seed=torch.from_numpy(rng.integers(2**31, size=1)),
    )


def _centre(case: LabelledVolume, config: PublishedSampling, rng: np.random.Generator) -> WorldPointRAS:
    """Return a voxel of the object, or of the background, in the patient."""
    if rng.random() < config.foreground_share:
        voxels = case.index.object_voxels_dhw
        voxel = voxels[rng.integers(len(voxels))]
    else:
        # Objects fill a small part of a scan, so that this ends at once.
        voxel = rng.integers(0, case.label.shape)
        while case.label[tuple(voxel)]:
            voxel = rng.integers(0, case.label.shape)
    return case.volume.grid.to_world(VoxelPoint.of(voxel))


def _moved_inside(place: WorldPointRAS, grid: VolumeGrid, side_mm: NDArray[np.float64]) -> WorldPointRAS:
    """Move the middle of a box, with sides along x, y and z, so that it lies in the scan."""
    low, high = (point.as_array() for point in grid.bounds_of(grid.box))
    room = np.maximum(high - low - side_mm, 0) / 2
    middle = (low + high) / 2
    return WorldPointRAS.of(np.clip(place.as_array(), middle - room, middle + room))


def _changed(grid: VolumeGrid, config: PublishedSampling, rng: np.random.Generator) -> VolumeGrid:
    """Rotate, zoom, flip and turn a patch grid about its middle, in patch axes."""
    change = np.eye(3)
    if config.geometry == "in_plane":
        if rng.random() < config.rotation_share:
            angle = np.deg2rad(rng.uniform(-1, 1) * config.rotation_degrees)
            change[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        if rng.random() < config.zoom_share:
            change = change @ np.diag([1.0, *(1 / rng.uniform(*config.zoom, 2))])
    elif rng.random() < config.zoom_share:
        change = change / rng.uniform(*config.zoom)
    change = change @ np.diag(np.where(rng.random(3) < config.flip_share, -1.0, 1.0))
    if rng.random() < config.quarter_turn_share:
        turns = int(rng.integers(1, 4))
        change = change @ np.linalg.matrix_power(_QUARTER_TURN_DH, turns)
    return grid.with_steps(change)

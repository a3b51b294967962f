"""Samples for networks that take no clicks: windows anywhere in the scan."""

import numpy as np
import torch

from clickvol.datasets.augment import displacement, spoil_intensity, turned
from clickvol.datasets.samples import (
    LabelledVolume,
    TrainingSample,
    cut_around_object,
    unclicked_sample,
)
from clickvol.datasets.sampling import WindowSampling
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.patches.field_of_view import FieldOfView, extract


def draw_window_sample(
    case: LabelledVolume,
    patch_shape_dhw: tuple[int, int, int],
    config: WindowSampling,
    rng: np.random.Generator,
    *,
    num_channels: int = 1,
) -> TrainingSample:
    """Draw a window around a voxel of the object or around any voxel of the scan, without clicks."""
    kept = cut_around_object(case, config.cut_share, config.max_cut_mm, rng)
    scan_grid = case.volume.grid.crop(kept)
    if rng.random() < config.foreground_share:
        voxel = case.object_voxels_dhw[rng.integers(len(case.object_voxels_dhw))]
        place = case.volume.grid.to_world(VoxelPoint.of(voxel))
    else:
        anywhere = rng.uniform(0, np.array(scan_grid.shape_dhw) - 1)
        place = scan_grid.to_world(VoxelPoint.of(anywhere))
    reach_mm = config.max_shift * config.voxel_mm * np.array(patch_shape_dhw[::-1])
    centre = WorldPointRAS.of(place.as_array() + rng.uniform(-1, 1, 3) * reach_mm)
    field = FieldOfView(centre, config.voxel_mm, patch_shape_dhw)
    grid = turned(field.grid(), centre, config.rotation_degrees, config.stretch, rng)
    bend = displacement(patch_shape_dhw, config.elastic_voxels, rng)
    image = extract(
        case.volume.array[kept.slices],
        scan_grid,
        grid,
        outside_value=case.outside_value,
        displacement_voxel=bend,
    )
    soft = extract(case.label[kept.slices], scan_grid, grid, outside_value=0.0, displacement_voxel=bend)
    patch = spoil_intensity(case.scale.normalise(image), rng)
    return unclicked_sample(torch.from_numpy(patch), soft > 0.5, num_channels)

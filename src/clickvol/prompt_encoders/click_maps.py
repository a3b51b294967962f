"""Clicks drawn as smooth blobs on a grid: where they are, how far, and of which sign."""

import torch
from torch import Tensor

from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL


def draw_clicks(
    prompts: PointPrompts,
    map_shape_dhw: tuple[int, int, int],
    patch_shape_dhw: tuple[int, int, int],
    radii_voxel: tuple[float, ...],
) -> Tensor:
    """Draw each sign's clicks, (B, N), as Gaussian blobs of several radii (deviations in patch voxels).

    exp(-distance^2 / (2 radius^2)) to the nearest click of the sign; 0 where there is none. The map (d, h, w)
    covers the whole patch (D, H, W).

    Returns:
        (B, 2 * len(radii), d, h, w) in [0, 1]: first the clicks inside, then those outside.
    """
    points = prompts.points_dhw.to(torch.float32)
    count = points.shape[1]
    if count == 0:
        return points.new_zeros((len(points), 2 * len(radii_voxel), *map_shape_dhw))
    # Squared distance along each axis from a cell's centre, in patch voxels, whose centres are at integers.
    along = []
    for axis, (cells, voxels) in enumerate(zip(map_shape_dhw, patch_shape_dhw, strict=True)):
        cell = torch.arange(cells, device=points.device, dtype=torch.float32)
        centres = (cell + 0.5) * (voxels / cells) - 0.5
        along.append((points[:, :, axis, None] - centres).square())
    d, h, w = along
    squared = d[:, :, :, None, None] + h[:, :, None, :, None] + w[:, :, None, None, :]
    maps = []
    for label in (FOREGROUND_LABEL, BACKGROUND_LABEL):
        absent = (prompts.labels != label)[:, :, None, None, None]
        nearest = squared.masked_fill(absent, torch.inf).amin(dim=1)
        maps += [torch.exp(nearest / (-2 * radius**2)) for radius in radii_voxel]
    return torch.stack(maps, dim=1)

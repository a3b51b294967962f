"""Clicks drawn as smooth blobs on a grid: where they are, how far, and of which sign."""

import torch
from torch import Tensor

from clickvol.layers.position_encoding import cell_centres
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL


def draw_clicks(
    prompts: PointPrompts,
    map_shape_dhw: tuple[int, int, int],
    patch_shape_dhw: tuple[int, int, int],
    radii_voxel: tuple[float, ...],
) -> Tensor:
    """Draw each sign's clicks as Gaussian blobs of several radii.

    exp(-distance^2 / (2 radius^2)) to the nearest click of the sign; 0 where there is none.

    Args:
        prompts: the clicks, (B, N).
        map_shape_dhw: (d, h, w) of the map to draw on; it covers the whole patch.
        patch_shape_dhw: (D, H, W) of the patch.
        radii_voxel: standard deviations in voxels of the patch.

    Returns:
        (B, 2 * len(radii), d, h, w) in [0, 1]: first the clicks inside, then those outside.
    """
    points = prompts.points_dhw.to(torch.float32)
    shape = torch.tensor(patch_shape_dhw, device=points.device, dtype=torch.float32)
    # A cell's centre in patch voxels, whose centres are at integers.
    centres = cell_centres(map_shape_dhw, like=points) * shape - 0.5
    squared = torch.full((points.shape[0], 2, *map_shape_dhw), torch.inf, device=points.device)
    for sign, label in enumerate((FOREGROUND_LABEL, BACKGROUND_LABEL)):
        for n in range(points.shape[1]):
            to_click = points[:, n].view(-1, 1, 1, 1, 3) - centres[None]
            here = (to_click**2).sum(-1)
            absent = (prompts.labels[:, n] != label).view(-1, 1, 1, 1)
            squared[:, sign] = torch.minimum(squared[:, sign], here.masked_fill(absent, torch.inf))
    radii = torch.tensor(radii_voxel, device=points.device).view(1, 1, -1, 1, 1, 1)
    return torch.exp(-squared[:, :, None] / (2 * radii**2)).flatten(1, 2)

"""Clicks that sample the image features and, through learned queries, change the feature map.

Published form (3DSAM-adapter, ProMISe-3D): the features under each click become tokens; ten learned
queries attend to them; every cell of the deepest map attends to the queries. All clicks are treated
alike and where they lie does not matter beyond the features found there. Two options repair that:
`signed` adds a learned embedding of inside and beside to the tokens, and `positions="fourier"` adds the
places of clicks and cells, as the paper's figure 3 suggests.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.attention import TokenAttention
from clickvol.layers.position_encoding import FourierPositions, cell_centres
from clickvol.layers.vit import Mlp
from clickvol.shapes import PADDING_LABEL

Positions = Literal["ignored", "fourier"]


@dataclass(frozen=True, kw_only=True)
class FeatureSamplingConfig:
    """Sizes of the prompt encoder. The defaults are the published ones.

    Attributes:
        num_queries: learned queries of each layer.
        signed: add a learned embedding of the click's sign to its token; False as published.
        positions: "ignored" as published, or "fourier".
    """

    width: int = 256
    depth: int = 2
    num_heads: int = 8
    mlp_width: int = 2048
    num_queries: int = 10
    signed: bool = False
    positions: Positions = "ignored"


@dataclass(frozen=True, slots=True)
class PointPrompts:
    """Clicks of a batch, in voxels of the patch, and what else the user has drawn.

    Attributes:
        points_dhw: (B, N, 3) float, patch voxels in the order (d, h, w); centres at integers. May lie
            outside the patch: then zeros are sampled.
        labels: (B, N) int64: 1 inside the object, 0 beside it, -1 no click (padding).
        hints: (B, C, D, H, W) in [-1, 1]: scribbles, boxes and diameters as maps; None where there are none.
    """

    points_dhw: Tensor
    labels: Tensor
    hints: Tensor | None = None


class FeatureSampling(nn.Module):
    """Feature map and clicks -> feature map of the same shape."""

    def __init__(self, config: FeatureSamplingConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_QueryLayer(config) for _ in range(config.depth)])
        self.sign_embed = nn.Embedding(2, config.width) if config.signed else None
        self.positions = FourierPositions(config.width) if config.positions == "fourier" else None

    def forward(
        self, feature_map: Tensor, prompts: PointPrompts, patch_shape_dhw: tuple[int, int, int]
    ) -> Tensor:
        """Condition the deepest feature map, (B, E, d, h, w), of a patch (D, H, W) on the clicks, (B, N)."""
        points = prompts.points_dhw.to(torch.float32) + 0.5
        place = torch.stack([points[..., axis] / n for axis, n in enumerate(patch_shape_dhw)], dim=-1)
        tokens = sample_features(feature_map, place)
        is_real = prompts.labels != PADDING_LABEL
        if self.sign_embed is not None:
            tokens = tokens + self.sign_embed(prompts.labels.clamp(min=0))
        image = feature_map.flatten(2).transpose(1, 2)
        cells: Tensor | None = None
        if self.positions is not None:
            tokens = tokens + self.positions(place)
            grid = (feature_map.shape[2], feature_map.shape[3], feature_map.shape[4])
            cells = self.positions(cell_centres(grid, like=feature_map)).flatten(0, 2)[None]
        for layer in self.layers:
            tokens, image = layer(tokens, image, is_real, cells)
        return image.transpose(1, 2).reshape(feature_map.shape)


def sample_features(feature_map: Tensor, place_dhw: Tensor) -> Tensor:
    """Read a map (B, E, d, h, w) at places, trilinear, zeros outside: (B, N, E).

    Places are (B, N, 3) as parts of the patch side, order (d, h, w); [0, 1] is inside.
    """
    # grid_sample wants the fastest axis first, in [-1, 1].
    grid = (2 * place_dhw - 1).flip(-1)[:, :, None, None].to(feature_map.dtype)
    sampled = F.grid_sample(feature_map, grid, mode="bilinear", align_corners=False)
    return sampled[:, :, :, 0, 0].transpose(1, 2)


class _QueryLayer(nn.Module):
    """Queries gather from the clicks, then the image gathers from the queries."""

    def __init__(self, config: FeatureSamplingConfig) -> None:
        super().__init__()
        width = config.width
        self.global_query = nn.Parameter(nn.init.normal_(torch.empty(1, config.num_queries, width), std=0.1))
        self.self_attn = TokenAttention(width, width, config.num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.mlp_width, activation="relu")
        self.norm3 = nn.LayerNorm(width)
        self.image_to_query = TokenAttention(width, width // 2, config.num_heads)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self, points: Tensor, image: Tensor, is_real: Tensor, cells: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Update click tokens (B, N, E) and image (B, T, E).

        `is_real` (B, N) is False for padding; `cells` (1, T, E) are codes of the cells' places, or None.
        """
        batch, num_queries = points.shape[0], self.global_query.shape[1]
        tokens = torch.cat([self.global_query.expand(batch, -1, -1), points], dim=1)
        seen = F.pad(is_real, (num_queries, 0), value=True)
        gathered = self.norm1(self.self_attn(tokens, tokens, tokens, seen))
        tokens = self.norm2(tokens + gathered)
        queries, points = tokens[:, :num_queries], tokens[:, num_queries:]
        queries = self.norm3(queries + self.mlp(queries))
        asking = image if cells is None else image + cells
        image = self.norm4(image + self.image_to_query(asking, queries, queries))
        return points, image

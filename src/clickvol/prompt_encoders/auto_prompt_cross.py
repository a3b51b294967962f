"""Points regressed by learned queries that attend to feature maps: ProMISe-2D's other auto-prompting form.

Built like the decoder of Mask2Former (Cheng et al., CVPR 2022) without its masks, its self-attention and its
last norm. The published 44.31 M parameters contain a second norm per layer that nothing uses; it is left out.
"""

import torch
from torch import Tensor, nn

from clickvol.layers.attention import TokenAttention
from clickvol.layers.vit import Mlp


class PointQueries(nn.Module):
    """Feature maps -> N unbounded pairs: one query per point attends to one map after the other.

    Each map is enlarged by 2 `num_doublings` times before that. A map of another width than the queries is
    projected by a 1x1 convolution (ours: the published form has SAM's width throughout).
    """

    def __init__(
        self,
        map_widths: tuple[int, ...],
        num_doublings: tuple[int, ...],
        num_points: int,
        *,
        width: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.prepare = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Identity() if w == width else nn.Conv2d(w, width, kernel_size=1),
                    *[Doubling(width) for _ in range(n)],
                )
                for w, n in zip(map_widths, num_doublings, strict=True)
            ]
        )
        self.level_embed = nn.Parameter(torch.randn(len(map_widths), width))
        self.query = nn.Parameter(torch.randn(num_points, width))
        self.query_position = nn.Parameter(torch.randn(num_points, width))
        self.layers = nn.ModuleList([_QueryLayer(width, num_heads) for _ in map_widths])
        self.head = nn.Linear(width, 2)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Regress (B, N, 2) points from maps (B, E_i, h_i, w_i), shallow to deep, the deepest first."""
        queries = self.query.expand(maps[0].shape[0], -1, -1)
        levels = [prepare(m) for prepare, m in zip(self.prepare, maps, strict=True)]
        for layer, level, embed in zip(self.layers, reversed(levels), self.level_embed.flip(0), strict=True):
            places = sine_positions((level.shape[2], level.shape[3]), level.shape[1], like=level)
            cells = level.flatten(2).transpose(1, 2) + embed
            queries = layer(queries, self.query_position, cells, places)
        return torch.as_tensor(self.head(queries))


class Doubling(nn.Sequential):
    """2x2 transposed and 3x3 convolution, BatchNorm, ReLU: (B, E, h, w) -> (B, E, 2 h - 2, 2 w - 2)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            nn.Conv2d(width, width, kernel_size=3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )


class _QueryLayer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = TokenAttention(width, width, num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, query_position: Tensor, cells: Tensor, places: Tensor) -> Tensor:
        """Update the queries (B, N, E) with the cells (B, T, E) of a map.

        `query_position` (N, E) is added to what asks, `places` (T, E) to the keys and not to the values.
        """
        gathered = self.attn(queries + query_position, cells + places, cells)
        queries = self.norm1(queries + gathered)
        return torch.as_tensor(self.norm2(queries + self.mlp(queries)))


def sine_positions(shape_hw: tuple[int, int], width: int, *, like: Tensor) -> Tensor:
    """Return sines and cosines of the places of a map's cells, first of h, then of w: (h w, E) in [-1, 1].

    As released: places count from 1, the k-th frequency is 1 / k for k = 1, 2, ..., and sine and cosine of a
    frequency stand side by side. E is a multiple of 4.
    """
    frequency = 1 / torch.arange(1, width // 4 + 1, device=like.device, dtype=torch.float32)
    codes = []
    for length in shape_hw:
        place = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        angle = place[:, None] * frequency
        codes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1))
    rows, columns = codes
    h, w = shape_hw
    grid = torch.cat([rows[:, None].expand(h, w, -1), columns[None].expand(h, w, -1)], dim=-1)
    return grid.flatten(0, 1).to(like.dtype)

"""A block of SAM's ViT on a 2D grid of tokens: windows or the whole grid, relative positions.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), appendix A, after ViTDet (Li et al. 2022, arXiv
2203.16527). As in the 3D network, the relative terms of a logit are extra columns of q and k, so that one fused
attention does everything and no (T, T) tensor is stored: at 64 x 64 tokens and twelve heads that one would be
805 MB.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.relative_position import offset_rows, place_one_hot, query_columns
from clickvol.layers.vit import Mlp


class GridAttention2d(nn.Module):
    """Multi-head attention among all tokens of a grid, with decomposed relative positions.

    logits = (q / sqrt(E_head)) k^T + q.R_h[h_i - h_j] + q.R_w[w_i - w_j]; q is not scaled in the relative
    terms. Tables made for a grid of so many tokens a side have 2 * table_side - 1 rows.
    """

    def __init__(self, width: int, num_heads: int, table_side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * table_side - 1, self.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * table_side - 1, self.head_width))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, grid: Tensor) -> Tensor:
        """(G, h, w, E) -> (G, h, w, E); every grid by itself."""
        g, h, w, e = grid.shape
        qkv = self.qkv(grid).view(g, h * w, 3, self.num_heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        on_grid = query.reshape(g, self.num_heads, h, w, self.head_width)
        tables = ((self.rel_pos_h, h), (self.rel_pos_w, w))
        rows = tuple(offset_rows(table, side).to(query.dtype) for table, side in tables)
        relative = query_columns(on_grid, rows).flatten(2, 3)
        place = place_one_hot((h, w), like=key).expand(g, self.num_heads, -1, -1)
        long_query = torch.cat([query * self.head_width**-0.5, relative], dim=-1)
        long_key = torch.cat([key, place], dim=-1)
        padded_value = F.pad(value, (0, h + w))
        mixed = F.scaled_dot_product_attention(long_query, long_key, padded_value, scale=1.0)
        mixed = mixed[..., : self.head_width].transpose(1, 2).reshape(g, h, w, e)
        return torch.as_tensor(self.proj(mixed))


class VitBlock2d(nn.Module):
    """x += attention(norm1(x)); x += mlp(norm2(x)). LayerNorm eps 1e-6, exact GELU.

    Without a window (0) it attends over the whole grid of `grid_side`. Else a grid is padded at its far ends
    with zeros to whole windows, after norm1; as in SAM, the padding is attended to.
    """

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float, window: int, grid_side: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = GridAttention2d(width, num_heads, window or grid_side)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, h, w, E)."""
        x = x + self._attend(self.norm1(x))
        return x + torch.as_tensor(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window:
            return torch.as_tensor(self.attn(x))
        h, w = (int(n) for n in x.shape[1:3])
        return join_squares(self.attn(cut_squares(x, self.window)), (h, w))


def cut_squares(tokens: Tensor, side: int) -> Tensor:
    """Cut grids, zero-padded at their ends, into squares: (B, h, w, E) -> (B * windows, side, side, E)."""
    b, h, w, e = tokens.shape
    rows, columns = -(-h // side), -(-w // side)
    padded = F.pad(tokens, (0, 0, 0, columns * side - w, 0, rows * side - h))
    cut = padded.view(b, rows, side, columns, side, e).transpose(2, 3)
    return cut.reshape(-1, side, side, e)


def join_squares(windows: Tensor, shape_hw: tuple[int, int]) -> Tensor:
    """Undo `cut_squares`: (B * windows, side, side, E) -> (B, h, w, E)."""
    h, w = shape_hw
    side, e = int(windows.shape[1]), int(windows.shape[3])
    rows, columns = -(-h // side), -(-w // side)
    whole = windows.view(-1, rows, columns, side, side, e).transpose(2, 3)
    return whole.reshape(-1, rows * side, columns * side, e)[:, :h, :w]

"""A SAM ViT block on a 3D grid of tokens, with shifted cubic windows and two adapters."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.adapters import Adapter3d, AdapterInitialisation
from clickvol.layers.relative_position import offset_rows, place_one_hot, query_columns
from clickvol.layers.windows import Triple, from_windows, region_codes, to_windows

SecondAdapter = Literal["none", "plain", "doubled"]

# Logit by which a token is kept from seeing one of another region; the published value.
_REGION_LOGIT = 100.0

# Rows that one step of inference works on, so that temporaries stay in cache and below the size
# from which the C library gives memory back to the system after every use.
_CHUNK_TOKENS = 4096


class WindowAttention3d(nn.Module):
    """Multi-head attention inside windows with decomposed relative positions in three axes.

    logits = (q / sqrt(E_head)) k^T + relative_scale * (q.R_d + q.R_h + q.R_w); q is not scaled in the
    relative terms. Relative positions and regions are extra columns of q and k, so one fused
    attention does everything and no (T, T) bias is ever stored.

    Args:
        width: token width E.
        num_heads: heads; E must be a multiple.
        table_rows: rows of each of the three tables (27 and 127 in SAM).
    """

    def __init__(self, width: int, num_heads: int, table_rows: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_d = nn.Parameter(torch.zeros(table_rows, self.head_width))
        self.rel_pos_h = nn.Parameter(torch.zeros(table_rows, self.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(table_rows, self.head_width))
        self.relative_scale = nn.Parameter(torch.ones(()))

    def forward(self, windows: Tensor, regions: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            windows: (G, d, h, w, E), G = batch x windows.
            regions: (num_windows, places, codes) one-hot from `region_codes`, or None.

        Returns:
            (G, d, h, w, E).
        """
        g, d, h, w, e = windows.shape
        places = d * h * w
        qkv = self.qkv(windows).view(g, places, 3, self.num_heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rows = (
            offset_rows(self.rel_pos_d, d).to(query.dtype),
            offset_rows(self.rel_pos_h, h).to(query.dtype),
            offset_rows(self.rel_pos_w, w).to(query.dtype),
        )
        grid_query = query.view(g, self.num_heads, d, h, w, self.head_width)
        relative = self.relative_scale.to(query.dtype) * query_columns(grid_query, rows)
        one_hot = place_one_hot((d, h, w), like=key)
        query_parts = [query * self.head_width**-0.5, relative.view(g, self.num_heads, places, -1)]
        key_parts = [key, one_hot.expand(g, self.num_heads, -1, -1)]
        if regions is not None:
            codes = regions.to(key.dtype).repeat(g // regions.shape[0], 1, 1)[:, None]
            codes = codes.expand(-1, self.num_heads, -1, -1)
            query_parts.append(_REGION_LOGIT * codes)
            key_parts.append(codes)
        long_query, long_key = torch.cat(query_parts, -1), torch.cat(key_parts, -1)
        padded_value = F.pad(value, (0, long_key.shape[-1] - self.head_width))
        mixed = F.scaled_dot_product_attention(long_query, long_key, padded_value, scale=1.0)
        mixed = mixed[..., : self.head_width].transpose(1, 2).reshape(g, d, h, w, e)
        return torch.as_tensor(self.proj(mixed))


class Mlp(nn.Module):
    """Linear, activation (exact GELU or ReLU), Linear."""

    def __init__(
        self, width: int, hidden: int, *, activation: Literal["gelu", "relu"] = "gelu"
    ) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return torch.as_tensor(self.lin2(self.activation(self.lin1(x))))


class LiftedBlock(nn.Module):
    """One transformer block of the lifted encoder.

    x += adapter(x); x += attention(norm1(x)); x += mlp(norm2(x)); then, with a second adapter,
    x += adapter_back(x). The published ProMISe-3D code adds x once more there, which doubles the
    residual stream in every block: `second_adapter="doubled"`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        window: int,
        shifted: bool,
        table_rows: int,
        second_adapter: SecondAdapter,
        adapter_initialisation: AdapterInitialisation,
        adapter_final_relu: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.stream_factor = 2.0 if second_adapter == "doubled" else 1.0
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = WindowAttention3d(width, num_heads, table_rows)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

        def adapter() -> Adapter3d:
            return Adapter3d(
                width,
                width // 2,
                initialisation=adapter_initialisation,
                final_relu=adapter_final_relu,
            )

        self.adapter = adapter()
        self.adapter_back = None if second_adapter == "none" else adapter()

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, h, w, E) -> (B, d, h, w, E)."""
        x = x + self.adapter(x)
        x = x + self._attend(self.norm1(x))
        x = x + _in_chunks(lambda rows: self.mlp(self.norm2(rows)), x)
        if self.adapter_back is not None:
            x = self.stream_factor * x + self.adapter_back(x)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        d, h, w = (int(n) for n in x.shape[1:4])
        # A window larger than the grid is the grid: nothing to cut, nothing to shift.
        window: Triple = (min(self.window, d), min(self.window, h), min(self.window, w))
        half = self.window // 2
        shift: Triple = (
            half if self.shifted and d > self.window else 0,
            half if self.shifted and h > self.window else 0,
            half if self.shifted and w > self.window else 0,
        )
        windows = to_windows(x, window, shift)
        regions = region_codes((d, h, w), window, shift, like=x)
        if regions is not None:
            regions = regions.repeat(x.shape[0], 1, 1)
        per_chunk = max(1, _CHUNK_TOKENS // (window[0] * window[1] * window[2]))
        if torch.is_grad_enabled() or windows.shape[0] <= per_chunk:
            mixed = self.attn(windows, regions)
        else:
            pieces = range(0, windows.shape[0], per_chunk)
            mixed = torch.cat(
                [
                    self.attn(
                        windows[i : i + per_chunk],
                        None if regions is None else regions[i : i + per_chunk],
                    )
                    for i in pieces
                ]
            )
        return from_windows(mixed, (d, h, w), window, shift)


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of single tokens to (..., E), piece by piece where no gradient is asked for."""
    if torch.is_grad_enabled():
        return function(x)
    rows = x.reshape(-1, x.shape[-1])
    return torch.cat([function(piece) for piece in torch.split(rows, _CHUNK_TOKENS)]).view(x.shape)

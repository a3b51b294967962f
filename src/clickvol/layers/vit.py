"""A SAM ViT block on a 3D grid of tokens, with shifted cubic windows and two adapters."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.adapters import Adapter3d, AdapterInitialisation, AdapterResidual
from clickvol.layers.matrix_work import cast_once
from clickvol.layers.relative_position import offset_rows, place_one_hot, query_columns
from clickvol.layers.residual import Part, Places, Residual
from clickvol.layers.windows import Triple, padded_shape, region_codes, window_index

SecondAdapter = Literal["none", "plain", "doubled"]

# Logit by which a token is kept from seeing one of another region. Published is 100, but e^-100 is a
# denormal number of float32 with which softmax takes 1.7 times as long; e^-200 is 0. Beside 1 both are
# nothing.
_REGION_LOGIT = 200.0

# Tokens that one step of inference works on. The largest temporary of ViT-B, the hidden layer of the MLP,
# is then 25 MB in float32 and stays in cache and below the 32 MB from which the C library asks the system
# for every temporary anew: steps of 4096 tokens took 25 times as long for a float32 GELU.
_CHUNK_TOKENS = 2048


class WindowAttention3d(nn.Module):
    """Multi-head attention inside windows with decomposed relative positions in three axes.

    logits = (q / sqrt(E_head)) k^T + relative_scale * (q.R_d + q.R_h + q.R_w); q is not scaled in the relative
    terms. Relative positions and regions are extra columns of q and k, so one fused attention does everything
    and no (T, T) bias is ever stored. Each of the three tables has `table_rows` (27 and 127 in SAM).
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
        """Attend within each of G = batch x windows (G, d, h, w, E); `regions` as from `region_codes`."""
        g, d, h, w, e = windows.shape
        places = d * h * w
        qkv = self.qkv(windows).view(g, places, 3, self.num_heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        tables = ((self.rel_pos_d, d), (self.rel_pos_h, h), (self.rel_pos_w, w))
        rows = tuple(offset_rows(table, side).to(query.dtype) for table, side in tables)
        grid_query = query.view(g, self.num_heads, d, h, w, self.head_width)
        relative = self.relative_scale.to(query.dtype) * query_columns(grid_query, rows)
        one_hot = place_one_hot((d, h, w), like=key)
        query_parts = [query * self.head_width**-0.5, relative.view(g, self.num_heads, places, -1)]
        key_parts = [key, one_hot.expand(g, self.num_heads, -1, -1)]
        if regions is not None:
            codes = regions.to(key.dtype).repeat(g // regions.shape[0], 1, 1)[:, None]
            # 0 for the own region, so that a coarse number format still tells its logits apart.
            query_parts.append((_REGION_LOGIT * (codes - 1)).expand(-1, self.num_heads, -1, -1))
            key_parts.append(codes.expand(-1, self.num_heads, -1, -1))
        mixed = _mix(torch.cat(query_parts, -1), torch.cat(key_parts, -1), value)
        return torch.as_tensor(self.proj(mixed.transpose(1, 2).reshape(g, d, h, w, e)))


def _mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T) value: (G, heads, places, E_head), the type of value.

    Query, scaled, and key are (G, heads, places, K), K at least the E_head of the value.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # torch's fused attention is no faster in bfloat16 than in float32 here; whole matrices, window
        # by window so that the logits stay in cache, took 0.27 times as long.
        windows = zip(query, key, value, strict=True)
        return torch.stack([torch.softmax(q @ k.mT, dim=-1) @ v for q, k, v in windows])
    padded = F.pad(value, (0, key.shape[-1] - value.shape[-1]))
    mixed = F.scaled_dot_product_attention(query, key, padded, scale=1.0)
    return mixed[..., : value.shape[-1]]


class Mlp(nn.Module):
    """Linear, activation (exact GELU or ReLU), Linear."""

    def __init__(self, width: int, hidden: int, *, activation: Literal["gelu", "relu"] = "gelu") -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return torch.as_tensor(self.lin2(self.activation(self.lin1(x))))


class AttentionResidual(Residual):
    """tokens + attention(norm(tokens)) within cubic windows, a few windows to a part."""

    def __init__(self, norm: nn.Module, attention: WindowAttention3d, window: int, *, shifted: bool) -> None:
        super().__init__(norm, attention)
        self.norm = norm
        self.attention = attention
        self.window = window
        self.shifted = shifted

    def parts(self, tokens: Tensor, part_tokens: int) -> Iterator[Part]:
        """See `Residual`."""
        b, d, h, w, _ = tokens.shape
        # A window larger than the grid is the grid: nothing to cut, nothing to shift.
        window: Triple = (min(self.window, d), min(self.window, h), min(self.window, w))
        half = self.window // 2
        shift: Triple = (
            half if self.shifted and d > self.window else 0,
            half if self.shifted and h > self.window else 0,
            half if self.shifted and w > self.window else 0,
        )
        index = window_index((d, h, w), window, shift, batch=b, device=tokens.device)
        regions = region_codes((d, h, w), window, shift, like=tokens)
        if regions is not None:
            regions = regions.repeat(b, 1, 1)
        is_padded = padded_shape((d, h, w), window) != (d, h, w)
        attention = cast_once(self.attention, tokens.device)

        def update(places: Places, codes: Tensor | None, selected: Tensor) -> Tensor:
            # What is padded is padded after the norm.
            windows = places.blank(self.norm(selected)).view(-1, *window, selected.shape[-1])
            return attention(windows, codes).view(selected.shape)

        per_part = max(1, part_tokens // index.shape[1])
        for start in range(0, len(index), per_part):
            places = Places(index[start : start + per_part].flatten(), is_padded)
            codes = None if regions is None else regions[start : start + per_part]
            yield places, partial(update, places, codes)


class MlpResidual(Residual):
    """tokens + mlp(norm(tokens)), token by token."""

    def __init__(self, norm: nn.Module, mlp: Mlp) -> None:
        super().__init__(norm, mlp)
        self.norm = norm
        self.mlp = mlp

    def parts(self, tokens: Tensor, part_tokens: int) -> Iterator[Part]:
        """See `Residual`."""
        mlp = cast_once(self.mlp, tokens.device)

        def update(selected: Tensor) -> Tensor:
            return mlp(self.norm(selected))

        for start in range(0, tokens.shape[:-1].numel(), part_tokens):
            yield Places(slice(start, start + part_tokens)), update


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
                width, width // 2, initialisation=adapter_initialisation, final_relu=adapter_final_relu
            )

        self.adapter = adapter()
        self.adapter_back = None if second_adapter == "none" else adapter()

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, h, w, E) -> (B, d, h, w, E)."""
        if not torch.is_grad_enabled():
            return self.update_(x.clone(memory_format=torch.contiguous_format))
        for residual in self._residuals():
            x = residual.add(x)
        return x

    def forward_again(self, x: Tensor) -> Tensor:
        """Do the same, keep little for the backward pass and do the rest again there."""
        for residual in self._residuals():
            x = residual.add_again(x, _part_tokens(x))
        return x

    def update_(self, x: Tensor) -> Tensor:
        """Do the same with (B, d, h, w, E), contiguous, in place and part by part, without gradients."""
        for residual in self._residuals():
            residual.add_(x, _part_tokens(x))
        return x

    def _residuals(self) -> Iterator[Residual]:
        yield AdapterResidual(self.adapter)
        yield AttentionResidual(self.norm1, self.attn, self.window, shifted=self.shifted)
        yield MlpResidual(self.norm2, self.mlp)
        if self.adapter_back is not None:
            yield AdapterResidual(self.adapter_back, factor=self.stream_factor)


def _part_tokens(x: Tensor) -> int:
    """Return how many tokens of (..., E) are worked on at once: all where there is no large cache."""
    return _CHUNK_TOKENS if x.device.type == "cpu" else x.numel() // x.shape[-1]

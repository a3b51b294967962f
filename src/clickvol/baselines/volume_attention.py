"""Attention among the tokens of a window of a volume, with relative positions learned per offset."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.baselines.baseline import Triple, require_multiple
from clickvol.layers.windows import region_codes, to_windows

# Usual of transformers, and of nnFormer's table of sizes.
_MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class WindowPlace:
    """How a map of tokens is cut.

    Attributes:
        shape_dhw: tokens of the map per axis, multiples of the window's.
        window_dhw: tokens of a window per axis; those of the map for attention over all of it.
        shift_dhw: tokens that the windows are moved by; the map is closed to a ring, but no token sees
            one that is a neighbour only through that.
    """

    shape_dhw: Triple
    window_dhw: Triple
    shift_dhw: Triple

    def __post_init__(self) -> None:
        require_multiple(self.shape_dhw, self.window_dhw, "attention in windows")


class VolumeAttention(nn.Module):
    """Multi-head attention inside windows: softmax(Q K^T / sqrt(d) + bias of the offset) V.

    With `skip`, keys and values are projected from a second map, and the tokens themselves are the queries;
    else all three are projected from the tokens.
    """

    def __init__(self, width: int, num_heads: int, place: WindowPlace, *, skip: bool) -> None:
        super().__init__()
        self._place = place
        self._num_heads = num_heads
        self.query = None if skip else nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        num_offsets = int(np.prod([2 * n - 1 for n in place.window_dhw]))
        self.offset_bias = nn.Parameter(torch.zeros(num_offsets, num_heads))
        nn.init.trunc_normal_(self.offset_bias, std=0.02)
        index = torch.from_numpy(_offset_index(place.window_dhw))
        self.register_buffer("_offset_index", index, persistent=False)
        self._offset_index: Tensor

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, d, h, w, E), and a skip of the same shape where there is one -> (B, d, h, w, E)."""
        queries = tokens if self.query is None else self.query(tokens)
        keys, values = self.key_value(tokens if skip is None else skip).chunk(2, dim=-1)
        q, k, v = (self._to_heads(x) for x in (queries.to(keys.dtype), keys, values))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(q))
        return torch.as_tensor(self.project(self._from_heads(attended, len(tokens))))

    def _to_heads(self, x: Tensor) -> Tensor:
        """(B, d, h, w, E) -> (B, num_windows * heads, T, E / heads)."""
        cut = to_windows(x, self._place.window_dhw, self._place.shift_dhw)
        size = int(np.prod(self._place.window_dhw))
        heads = cut.reshape(len(x), -1, size, self._num_heads, x.shape[-1] // self._num_heads)
        return heads.transpose(2, 3).flatten(1, 2)

    def _from_heads(self, x: Tensor, batch: int) -> Tensor:
        """(B, num_windows * heads, T, E / heads) -> (B, d, h, w, E)."""
        kd, kh, kw = self._place.window_dhw
        d, h, w = (n // k for n, k in zip(self._place.shape_dhw, self._place.window_dhw, strict=True))
        num_windows, size, width = d * h * w, kd * kh * kw, x.shape[-1] * self._num_heads
        x = x.reshape(batch, num_windows, self._num_heads, size, -1).transpose(2, 3)
        x = x.reshape(batch, d, h, w, kd, kh, kw, width)
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *self._place.shape_dhw, -1)
        return torch.roll(x, self._place.shift_dhw, dims=(1, 2, 3))

    def _bias(self, like: Tensor) -> Tensor:
        """Return what is added to the scores: (num_windows * heads, T, T), the windows of one sample."""
        bias = self.offset_bias[self._offset_index].permute(2, 0, 1)
        place = self._place
        codes = region_codes(place.shape_dhw, place.window_dhw, place.shift_dhw, like=bias)
        num_windows = like.shape[1] // self._num_heads
        if codes is None:
            return bias.to(like.dtype).repeat(num_windows, 1, 1)
        strangers = codes @ codes.transpose(1, 2) < 0.5
        masked = bias.masked_fill(strangers[:, None], float("-inf"))
        return masked.flatten(0, 1).to(like.dtype)


def _offset_index(window_dhw: Triple) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the row of the table of biases for each pair of tokens of a window: (T, T)."""
    places = np.stack(np.meshgrid(*[np.arange(n) for n in window_dhw], indexing="ij"), axis=-1)
    flat = places.reshape(-1, 3)
    last = np.array(window_dhw) - 1
    offset = flat[:, None] - flat[None] + last
    index = np.ravel_multi_index(tuple(np.moveaxis(offset, -1, 0)), tuple(2 * last + 1))
    return np.asarray(index, dtype=np.int64)


class TransformerLayer(nn.Module):
    """Attention and an MLP, each behind a LayerNorm and added to what it came from; so has a skip."""

    def __init__(self, width: int, num_heads: int, place: WindowPlace, *, skip: bool = False) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.norm_skip = nn.LayerNorm(width) if skip else None
        self.attention = VolumeAttention(width, num_heads, place, skip=skip)
        hidden = _MLP_RATIO * width
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, d, h, w, E), and a skip of the same shape where there is one -> (B, d, h, w, E)."""
        seen = None if self.norm_skip is None else self.norm_skip(skip)
        tokens = tokens + self.attention(self.norm_attention(tokens), seen)
        return torch.as_tensor(tokens + self.mlp(tokens))

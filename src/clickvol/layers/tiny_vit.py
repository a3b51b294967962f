"""The parts of TinyViT: normalised convolutions, inverted bottlenecks, window attention, merging.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022, section 3.3.
Images are 2D here. Parameter names are those of the published weights.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Side of every depth-wise kernel; from the shapes of the published weights.
_LOCAL_KERNEL = 3


class ConvNorm2d(nn.Module):
    """Convolution without bias, and batch normalisation (eps 1e-5, momentum 0.1).

    With running statistics the normalisation is linear, so that it is folded into the kernel: one pass over the
    image fewer, forth and back.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride), rounded up."""
        if self.bn.training:
            return torch.as_tensor(self.bn(self.c(x)))
        mean, variance = cast("Tensor", self.bn.running_mean), cast("Tensor", self.bn.running_var)
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        kernel = self.c.weight * scale[:, None, None, None]
        shift = self.bn.bias - mean * scale
        conv = self.c
        return F.conv2d(x, kernel, shift, conv.stride, conv.padding, groups=conv.groups)


class InvertedBottleneck(nn.Module):
    """MBConv block: 1x1 wider, depth-wise 3x3, 1x1 back, with GELU between and after the residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm2d(width, hidden)
        self.conv2 = ConvNorm2d(hidden, hidden, kernel=_LOCAL_KERNEL, groups=hidden)
        self.conv3 = ConvNorm2d(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E, h, w)."""
        return F.gelu(x + _three_steps(self.conv1, self.conv2, self.conv3, x))


class PatchMerging(nn.Module):
    """The step to the next stage: 1x1 to the new width, depth-wise 3x3 with the stride, 1x1."""

    def __init__(self, width: int, next_width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm2d(width, next_width)
        self.conv2 = ConvNorm2d(next_width, next_width, kernel=_LOCAL_KERNEL, stride=stride, groups=next_width)
        self.conv3 = ConvNorm2d(next_width, next_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E_next, h / stride, w / stride), rounded up."""
        return _three_steps(self.conv1, self.conv2, self.conv3, x)


def _three_steps(first: nn.Module, second: nn.Module, third: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(third(F.gelu(second(F.gelu(first(x))))))


def offset_index(window_hw: tuple[int, int], table_window: int) -> Tensor:
    """Return which entry of a table of biases each pair of places of a window uses.

    The table, made for a square window of side `table_window`, has one entry per distinct (|dy|, |dx|),
    numbered as they first appear when all pairs of places are gone through in order. All of them appear with
    the first place, so the number is |dy| * table_window + |dx|.

    Returns:
        (places, places) int64, places = h * w of the window that is looked at, in row order.
    """
    h, w = window_hw
    y = torch.arange(h).repeat_interleave(w)
    x = torch.arange(w).repeat(h)
    dy = (y[:, None] - y[None, :]).abs()
    dx = (x[:, None] - x[None, :]).abs()
    return dy * table_window + dx


class BiasedAttention2d(nn.Module):
    """Multi-head attention inside windows, with LayerNorm before and a learned bias per offset.

    logits = q k^T / sqrt(E_head) + bias[head, |dy|, |dx|].

    In the published network a map that is longer than the window along an axis is padded with zeros at its far
    end to whole windows, before the LayerNorm, and padded places are keys like any others. All of them have the
    same key and value (LayerNorm of zero is its shift), so here they are one key whose bias is the log of the
    sum of theirs: the same result, and nothing is computed where there is no image. Along an axis that is not
    longer than the window, the map itself is the window.
    """

    def __init__(self, width: int, num_heads: int, *, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.window = window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, h, w, E)."""
        h, w = int(tokens.shape[1]), int(tokens.shape[2])
        window_hw = (min(self.window, h), min(self.window, w))
        qkv = self.qkv(self.norm(tokens))
        padding = self.qkv(self.norm.bias)
        # Windows of one shape go together: whole ones, and those that the far ends cut.
        strips = [
            torch.cat(
                [
                    self._attend(qkv[:, rows, columns], padding, (real_h, real_w), window_hw)
                    for columns, real_w in _spans(w, window_hw[1])
                ],
                dim=2,
            )
            for rows, real_h in _spans(h, window_hw[0])
        ]
        return torch.as_tensor(self.proj(torch.cat(strips, dim=1)))

    def _attend(
        self, qkv: Tensor, padding: Tensor, real_hw: tuple[int, int], window_hw: tuple[int, int]
    ) -> Tensor:
        """Attend in windows of which only the places `real_hw` are on the map.

        (B, rows x real_h, columns x real_w, 3E) -> (B, rows x real_h, columns x real_w, E); `padding` (3E,) is
        that of a padded place.
        """
        heads, width = self.num_heads, self.head_width
        b, h, w, _ = qkv.shape
        (real_h, real_w), counts = real_hw, (h // real_hw[0], w // real_hw[1])
        split = qkv.reshape(b, counts[0], real_h, counts[1], real_w, heads, 3 * width)
        split = split.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, real_h * real_w, 3 * width)
        query, key, value = torch.split(split, width, dim=-1)
        if real_hw != window_hw:
            _, one_key, one_value = torch.split(padding.view(heads, 1, 3 * width), width, dim=-1)
            key = torch.cat([key, one_key.expand(len(key), -1, -1, -1)], dim=2)
            value = torch.cat([value, one_value.expand(len(value), -1, -1, -1)], dim=2)
        bias = self._bias(real_hw, window_hw).to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.view(b, *counts, heads, real_h, real_w, width)
        return mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, heads * width)

    def _bias(self, real_hw: tuple[int, int], window_hw: tuple[int, int]) -> Tensor:
        """Return what is added to the logits: (heads, places, places), one more key if places are padded."""
        device = self.attention_biases.device
        index = offset_index(window_hw, self.window).to(device)
        if real_hw == window_hw:
            return self._entries(index)
        real = torch.zeros(window_hw, dtype=torch.bool, device=device)
        real[: real_hw[0], : real_hw[1]] = True
        real = real.flatten()
        from_real = index[real]
        padded = torch.logsumexp(self._entries(from_real[:, ~real]), dim=-1, keepdim=True)
        return torch.cat([self._entries(from_real[:, real]), padded], dim=-1)

    def _entries(self, index: Tensor) -> Tensor:
        """Look entries of the table up: (n, m) int64 -> (heads, n, m)."""
        # By index_select, whose gradient is much faster than that of fancy indexing.
        return self.attention_biases.index_select(1, index.flatten()).view(-1, *index.shape)


def _spans(length: int, window: int) -> list[tuple[slice, int]]:
    """Return the run of whole windows, and the rest if there is one, each with the length of its windows."""
    whole = length // window * window
    spans = [(slice(0, whole), window)]
    return spans if whole == length else [*spans, (slice(whole, length), length - whole)]


class NormMlp(nn.Module):
    """LayerNorm, Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return torch.as_tensor(self.fc2(F.gelu(self.fc1(self.norm(x)))))


class TinyVitBlock(nn.Module):
    """x += attention(x) in windows; x = local_conv(x); x += mlp(x)."""

    def __init__(self, width: int, num_heads: int, *, window: int, hidden: int) -> None:
        super().__init__()
        self.attn = BiasedAttention2d(width, num_heads, window=window)
        self.local_conv = ConvNorm2d(width, width, kernel=_LOCAL_KERNEL, groups=width)
        self.mlp = NormMlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E, h, w)."""
        x = x + self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        return torch.as_tensor(x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

"""The parts of TinyViT: normalised convolutions, inverted bottlenecks, window attention, merging.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022, section 3.3.
Images are 2D here. Parameter names are those of the published weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Side of every depth-wise kernel; from the shapes of the published weights.
_LOCAL_KERNEL = 3


class ConvNorm2d(nn.Module):
    """Convolution without bias, and batch normalisation (eps 1e-5, momentum 0.1).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: side of the kernel, odd; the border is padded with kernel // 2 zeros.
        stride: step in both axes.
        groups: groups of channels that do not mix; `channels_in` makes it depth-wise.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C_out, H / stride, W / stride), rounded up."""
        return torch.as_tensor(self.bn(self.c(x)))


class InvertedBottleneck(nn.Module):
    """MBConv block: 1x1 wider, depth-wise 3x3, 1x1 back, with GELU between and after the residual.

    Args:
        width: channels in and out.
        hidden: channels between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm2d(width, hidden)
        self.conv2 = ConvNorm2d(hidden, hidden, kernel=_LOCAL_KERNEL, groups=hidden)
        self.conv3 = ConvNorm2d(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E, h, w)."""
        return F.gelu(x + _three_steps(self.conv1, self.conv2, self.conv3, x))


class PatchMerging(nn.Module):
    """The step to the next stage: 1x1 to the new width, depth-wise 3x3 with the stride, 1x1.

    Args:
        width: channels of the stage that ends.
        next_width: channels of the stage that begins.
        stride: step in both axes; 1 keeps the grid.
    """

    def __init__(self, width: int, next_width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm2d(width, next_width)
        self.conv2 = ConvNorm2d(
            next_width, next_width, kernel=_LOCAL_KERNEL, stride=stride, groups=next_width
        )
        self.conv3 = ConvNorm2d(next_width, next_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E_next, h / stride, w / stride), rounded up."""
        return _three_steps(self.conv1, self.conv2, self.conv3, x)


def _three_steps(first: nn.Module, second: nn.Module, third: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(third(F.gelu(second(F.gelu(first(x))))))


def offset_index(window_hw: tuple[int, int], table_window: int) -> Tensor:
    """Return which entry of a table of biases each pair of places of a window uses.

    The table has one entry per distinct (|dy|, |dx|), numbered as they first appear when all pairs of
    places of a square window are gone through in order. All of them appear with the first place, so the
    number is |dy| * table_window + |dx|.

    Args:
        window_hw: sides of the window that is looked at, each at most `table_window`.
        table_window: side of the window that the table was made for.

    Returns:
        (places, places) int64, places = h * w in row order.
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

    Args:
        width: token width E.
        num_heads: heads; E must be a multiple.
        window: side of the square window that the table of biases is made for.
    """

    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.window = window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))

    def forward(self, windows: Tensor) -> Tensor:
        """(G, h, w, E) -> (G, h, w, E), G = batch x windows; sides at most the table's window."""
        g, h, w, e = windows.shape
        qkv = self.qkv(self.norm(windows)).view(g, h * w, self.num_heads, 3 * self.head_width)
        query, key, value = qkv.transpose(1, 2).split(self.head_width, dim=-1)
        index = offset_index((h, w), self.window).to(windows.device)
        # The gather is by index_select: its gradient is much faster than that of fancy indexing.
        bias = self.attention_biases.index_select(1, index.view(-1)).view(-1, h * w, h * w)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return torch.as_tensor(self.proj(mixed.transpose(1, 2).reshape(g, h, w, e)))


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
    """x += attention(x) in windows; x = local_conv(x); x += mlp(x).

    A map that is longer than the window along an axis is padded with zeros at its far end to whole
    windows. The padding happens before the LayerNorm of the attention, and padded places are keys like
    any others, as in the published network. Along an axis that is not longer than the window, the map
    itself is the window.

    Args:
        width: token width.
        num_heads: attention heads.
        window: side of the attention window in tokens.
        hidden: width inside the MLP.
    """

    def __init__(self, width: int, num_heads: int, *, window: int, hidden: int) -> None:
        super().__init__()
        self.window = window
        self.attn = BiasedAttention2d(width, num_heads, window)
        self.local_conv = ConvNorm2d(width, width, kernel=_LOCAL_KERNEL, groups=width)
        self.mlp = NormMlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, E, h, w)."""
        x = x + self._attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        return torch.as_tensor(x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    def _attend(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, h, w, E)."""
        b, h, w, e = tokens.shape
        kh, kw = min(self.window, h), min(self.window, w)
        rows, columns = -(-h // kh), -(-w // kw)
        padded = F.pad(tokens, (0, 0, 0, columns * kw - w, 0, rows * kh - h))
        cut = padded.view(b, rows, kh, columns, kw, e).transpose(2, 3)
        mixed = self.attn(cut.reshape(-1, kh, kw, e))
        whole = mixed.view(b, rows, columns, kh, kw, e).transpose(2, 3)
        return torch.as_tensor(whole.reshape(b, rows * kh, columns * kw, e)[:, :h, :w])

"""Convolution blocks of the decoder, and the depth-wise convolution of the adapters."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from clickvol.layers.matrix_work import autocast_dtype
from clickvol.layers.norms import InstanceNormReLU


def convolve(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Convolve (B, C, D, H, W) with (C', C, 3, 3, 3), padded by 1, without bias; channels last stay last."""
    is_plain = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
    if is_plain or (autocast_dtype(x.device) or x.dtype) != torch.float32:
        return F.conv3d(x, kernel, stride=stride, padding=1)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call] # torch does not say
        return F.conv3d(x, kernel, stride=stride, padding=1)
    # F.conv3d has a form of its own for one small map, which takes 2 to 8 times as long.
    return torch.mkldnn_convolution(x, kernel, None, (1,) * 3, (stride,) * 3, (1,) * 3, 1)


class _Conv3(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.stride[0])


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    """Return a 3x3x3 convolution without bias that keeps the size (at stride 1)."""
    return _Conv3(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class Doubling(nn.ConvTranspose3d):
    """A transposed convolution of kernel and stride 2, with bias: (B, C, d, h, w) -> (B, C', 2d, 2h, 2w)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # no output size
        """Double the sides; without gradients as what it is, a linear layer, and with the channels last."""
        if torch.is_grad_enabled() or self.bias is None:
            return super().forward(x)
        b, _, d, h, w = x.shape
        kernel = self.weight.permute(2, 3, 4, 1, 0).flatten(0, 3)
        cells = F.linear(x.permute(0, 2, 3, 4, 1), kernel, self.bias.repeat(8)).view(b, d, h, w, 2, 2, 2, -1)
        placed = cells.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, 2 * d, 2 * h, 2 * w, -1)
        return placed.permute(0, 4, 1, 2, 3)


class DoubleConv(nn.Sequential):
    """Twice: 3x3x3 convolution without bias, InstanceNorm, ReLU. (B, C, ...) -> (B, C', ...)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            conv3(inputs, outputs, stride), InstanceNormReLU(), conv3(outputs, outputs), InstanceNormReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C', D, H, W), with the channels last in memory."""
        first, first_norm, second, second_norm = self
        x = first(x).contiguous(memory_format=torch.channels_last_3d)
        return torch.as_tensor(second_norm(second(first_norm(x))))


class UShape(nn.Module):
    """A small U-Net on a feature map: the output has the shape of the input.

    `channels` are those of each scale, finest first; each further one halves the resolution. One entry: the map
    passes unchanged.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList([DoubleConv(a, b, stride=2) for a, b in pairs])
        self.up = nn.ModuleList([Doubling(b, a, kernel_size=2, stride=2) for a, b in pairs])
        self.merge = nn.ModuleList([DoubleConv(2 * a, a) for a, _ in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W)."""
        scales = [x]
        for down in self.down:
            scales.append(down(scales[-1]))
        for level in reversed(range(len(self.down))):
            finer = scales[level]
            # An odd length is halved upwards on the way down; the surplus is cut on the way up.
            raised = self.up[level](scales[level + 1])
            raised = raised[:, :, : finer.shape[2], : finer.shape[3], : finer.shape[4]]
            scales[level] = self.merge[level](torch.cat([finer, raised], dim=1))
        return scales[0]


class DepthwiseConv3d(nn.Conv3d):
    """A 3x3x3 convolution of each channel with itself that keeps the size, with bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W)."""
        if not torch.is_grad_enabled():
            return super().forward(x)
        # Autocast does not look into functions with a backward pass of their own.
        x = x.to(autocast_dtype(x.device) or x.dtype)
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        result = _Depthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call] # torch does not say
        return torch.as_tensor(result)


class _Depthwise(torch.autograd.Function):
    """A depth-wise convolution with a backward pass for channels that come last in memory.

    torch's gradient of the kernel has no fast form in 3D: with 384 x 32^3 in bfloat16 its backward pass
    took 80 times as long as the forward pass. The gradient of the input is a convolution with the
    reversed kernel, the gradient of each plane of the kernel is one in 2D: 13 times as fast together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, bias, padding=1, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_result: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        channels, depth = len(weight), x.shape[2]
        grad_x = F.conv3d(grad_result, weight.flip(2, 3, 4), padding=1, groups=channels)
        grad_weight = torch.zeros_like(weight)
        for plane, offset in enumerate((-1, 0, 1)):
            # Result plane d reads input plane d + offset, where there is one.
            results = range(max(0, -offset), depth - max(0, offset))
            if results:
                grad_weight[:, :, plane] = conv2d_weight(  # type: ignore[no-untyped-call]
                    _planes(x, results.start + offset, len(results)),
                    (channels, 1, 3, 3),
                    _planes(grad_result, results.start, len(results)),
                    padding=1,
                    groups=channels,
                )
        return grad_x, grad_weight, grad_result.sum((0, 2, 3, 4))


def _planes(x: Tensor, start: int, count: int) -> Tensor:
    """Return planes of (B, C, D, H, W) as images: (B * count, C, H, W)."""
    return x[:, :, start : start + count].movedim(2, 1).flatten(0, 1)

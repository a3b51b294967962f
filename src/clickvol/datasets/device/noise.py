"""Noise from integer arithmetic, the same numbers on every device, and blurring.

A 32-bit hash of seed, stream and place: two rounds of multiply and xor-shift, with the constants of the
"lowbias32" mixer (C. Wellons, Hash Prospector, 2018, public domain). Good enough to augment pictures; not for
statistics.
"""

import torch
from torch import Tensor

Triple = tuple[int, int, int]

# 0x7feb352d and 0x846ca68b as signed 32-bit numbers, whose products wrap around as unsigned ones do.
_FACTORS = (0x7FEB352D, 0x846CA68B - 2**32)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right without the sign."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = x ^ _shifted(x, 16)
    x = x * _FACTORS[0]
    x = x ^ _shifted(x, 15)
    x = x * _FACTORS[1]
    return x ^ _shifted(x, 16)


def hashes(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return 32 random bits per place: (B,) int64 seeds -> (B, count) int32.

    Args:
        seeds: of the samples, below 2^31.
        stream: tells the uses of a seed apart.
        count: places.
    """
    keys = _mixed((seeds.to(torch.int32) ^ (stream * 0x9E3779 + 0x5BD1)).to(torch.int32))
    places = torch.arange(count, dtype=torch.int32, device=seeds.device)
    return _mixed(places[None] + keys[:, None])


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return numbers in [0, 1): (B, count) float32."""
    return _shifted(hashes(seeds, stream, count), 8).to(torch.float32) * 2**-24


def normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return nearly normal numbers, the sum of four uniform bytes scaled to variance 1: (B, count) float32."""
    bits = hashes(seeds, stream, count)
    total = (bits & 255) + (_shifted(bits, 8) & 255) + (_shifted(bits, 16) & 255) + _shifted(bits, 24)
    # Four bytes have the mean 510 and the variance 4 (256^2 - 1) / 12.
    return (total.to(torch.float32) - 510) * (1 / 147.8)


MOST_NORMAL = 510 / 147.8
"""Largest number that `normal` gives, and so `smooth`."""


def smooth(seeds: Tensor, stream: int, shape: Triple, nodes: int, channels: int = 1) -> Tensor:
    """Return normal noise on `nodes`^3 nodes, trilinear between: (B, channels, *shape) float32."""
    values = normal(seeds, stream, channels * nodes**3).view(-1, channels, nodes, nodes, nodes)
    # Three small products; torch's own interpolation takes ten times as long on a CPU.
    d, h, w = (_between_nodes(count, nodes, seeds.device) for count in shape)
    along_w = values @ w.T
    along_h = h @ along_w
    return torch.matmul(d, along_h.flatten(3)).view(*along_h.shape[:2], *shape)


def _between_nodes(count: int, nodes: int, device: torch.device) -> Tensor:
    """Return the weights of linear interpolation, ends on ends: (count, nodes)."""
    places = torch.arange(count, device=device, dtype=torch.float32) * ((nodes - 1) / max(count - 1, 1))
    return (1 - (places[:, None] - torch.arange(nodes, device=device)).abs()).clamp(min=0)


def box_mean(image: Tensor, size: int, *, counts_outside: bool = False) -> Tensor:
    """Average over cubes of an odd side: (B, 1, D, H, W); voxels outside are left out, or count as 0."""
    for axis in (2, 3, 4):
        total, length = image.clone(), image.shape[axis]
        for step in range(1, size // 2 + 1):
            total.narrow(axis, step, length - step).add_(image.narrow(axis, 0, length - step))
            total.narrow(axis, 0, length - step).add_(image.narrow(axis, step, length - step))
        places = torch.arange(length, device=image.device)
        inside = (places.clamp(max=size // 2) + (length - 1 - places).clamp(max=size // 2) + 1).float()
        count = torch.full_like(inside, size) if counts_outside else inside
        image = total.div_(count.view([-1 if a == axis else 1 for a in range(5)]))
    return image

"""Noise from integer arithmetic: the same numbers on every device.

A 32-bit hash of seed, stream and place: two rounds of multiply and xor-shift, with the constants of the
"lowbias32" mixer (C. Wellons, Hash Prospector, 2018, public domain). Good enough to augment pictures; not for
statistics.
"""

import torch
import torch.nn.functional as F
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


def smooth(seeds: Tensor, stream: int, shape: Triple, nodes: int, channels: int = 1) -> Tensor:
    """Return normal noise on `nodes`^3 nodes, trilinear between: (B, channels, *shape) float32."""
    values = normal(seeds, stream, channels * nodes**3).view(-1, channels, nodes, nodes, nodes)
    return F.interpolate(values, size=shape, mode="trilinear", align_corners=True)

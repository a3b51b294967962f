"""nnFormer: a U-shaped transformer with attention in windows, over whole maps, and across the skips.

Zhou et al., arXiv 2109.03201, IEEE TIP 2023; written from the paper. The defaults are the network of its
Synapse experiments: 150.5 M parameters as published (149.3 M in the table of 3D UX-Net's paper), 149.5 M here.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline, Triple, require_multiple, require_same
from clickvol.baselines.volume_attention import TransformerLayer, WindowPlace
from clickvol.errors import ConfigError

# Two resolutions with attention in windows, two with attention over the whole map.
_NUM_LOCAL, _NUM_LEVELS = 2, 4


@dataclass(frozen=True, kw_only=True)
class NnFormerConfig:
    """The whole network.

    Attributes:
        embedding_stride_dhw: voxels per token and axis, each 1, 2 or 4.
        width: of a token at the finest resolution; doubled at every further one.
        num_heads: attention heads per resolution.
        window: side of a window, tokens; even, since every second layer shifts it by half.
    """

    kind: Literal["nnformer"] = "nnformer"
    embedding_stride_dhw: tuple[int, int, int] = (2, 4, 4)
    width: int = 192
    num_heads: tuple[int, int, int, int] = (6, 12, 24, 48)
    window: int = 4

    def __post_init__(self) -> None:
        if any(n not in (1, 2, 4) for n in self.embedding_stride_dhw):
            raise ConfigError(
                f"embedding_stride_dhw is {self.embedding_stride_dhw}, but each must be 1, 2 or 4"
            )
        if self.width % 2 or any(self.width * 2**level % heads for level, heads in enumerate(self.num_heads)):
            raise ConfigError(
                f"width is {self.width}, but an even number that num_heads ({self.num_heads}) divide is "
                "expected"
            )
        if self.window < 2 or self.window % 2:
            raise ConfigError(f"window is {self.window}, but an even number is expected")

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return the patch itself: relative positions over whole maps are learned for it."""
        # In tokens: windows at the second resolution, and three halvings.
        side = math.lcm(2 * self.window, 2 ** (_NUM_LEVELS - 1))
        d, h, w = (side * n for n in self.embedding_stride_dhw)
        require_multiple(patch_shape_dhw, (d, h, w), "nnFormer")
        return patch_shape_dhw

    def map_shape_dhw(self, patch_shape_dhw: Triple, level: int) -> Triple:
        """Return the tokens per axis at a resolution, 0 the finest."""
        pairs = zip(patch_shape_dhw, self.embedding_stride_dhw, strict=True)
        d, h, w = (n // (stride * 2**level) for n, stride in pairs)
        return (d, h, w)


class NnFormer(nn.Module):
    """The network.

    Not stated in the paper, chosen here: a LayerNorm before each halving and doubling and on what the skips
    bring, as everywhere else in front of a projection. Its training with answers at coarser resolutions besides
    is left out.
    """

    def __init__(self, config: NnFormerConfig, patch_shape_dhw: Triple, num_channels: int = 1) -> None:
        super().__init__()
        self._patch_shape_dhw = config.patch_step_dhw(patch_shape_dhw)
        widths = [config.width * 2**level for level in range(_NUM_LEVELS)]
        places = [_places(config, patch_shape_dhw, level) for level in range(_NUM_LEVELS)]
        self.embed = Embedding(num_channels, config.width, config.embedding_stride_dhw)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(
            [Resample(a, nn.Conv3d(a, b, kernel_size=3, stride=2, padding=1)) for a, b in pairs]
        )
        sizes = list(zip(widths, config.num_heads, places, strict=True))
        self.encoder = nn.ModuleList(
            [
                nn.Sequential(*[TransformerLayer(width, heads, place) for place in pair])
                for width, heads, pair in sizes
            ]
        )
        self.up = nn.ModuleList(
            [Resample(b, nn.ConvTranspose3d(b, a, kernel_size=2, stride=2)) for a, b in pairs]
        )
        # On the way up the first of the two layers of a resolution attends to the skip.
        self.join = nn.ModuleList(
            [TransformerLayer(width, heads, plain, skip=True) for width, heads, (plain, _) in sizes[:-1]]
        )
        self.decoder = nn.ModuleList(
            [TransformerLayer(width, heads, shifted) for width, heads, (_, shifted) in sizes[:-1]]
        )
        self.norm = nn.LayerNorm(config.width)
        stride = config.embedding_stride_dhw
        self.classify = nn.ConvTranspose3d(config.width, NUM_CLASSES, kernel_size=stride, stride=stride)

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2, D, H, W) logits; ConfigError for another shape than its own."""
        d, h, w = patch.shape[2:]
        require_same((d, h, w), self._patch_shape_dhw, "nnFormer")
        tokens = self.embed(patch)
        kept: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            if level:
                tokens = self.down[level - 1](tokens)
            tokens = stage(tokens)
            kept.append(tokens)
        for level in reversed(range(_NUM_LEVELS - 1)):
            tokens = self.up[level](tokens)
            tokens = self.decoder[level](self.join[level](tokens, kept[level]))
        return torch.as_tensor(self.classify(_to_map(self.norm(tokens))))


def _places(config: NnFormerConfig, patch_shape_dhw: Triple, level: int) -> tuple[WindowPlace, WindowPlace]:
    """Return the windows of the two layers of a resolution: plain and shifted, or twice the whole map."""
    shape = config.map_shape_dhw(patch_shape_dhw, level)
    if level >= _NUM_LOCAL:
        whole = WindowPlace(shape, shape, (0, 0, 0))
        return (whole, whole)
    window, shift = (config.window,) * 3, (config.window // 2,) * 3
    return (WindowPlace(shape, window, (0, 0, 0)), WindowPlace(shape, window, shift))


class Embedding(nn.Module):
    """Four 3x3x3 convolutions from voxels to tokens; the first and the third take the strides."""

    def __init__(self, inputs: int, width: int, stride_dhw: Triple) -> None:
        super().__init__()
        d, h, w = stride_dhw
        early = (min(d, 2), min(h, 2), min(w, 2))
        late = (d // early[0], h // early[1], w // early[2])
        half = width // 2
        self.convs = nn.ModuleList(
            [
                nn.Conv3d(a, b, kernel_size=3, stride=stride, padding=1)
                for a, b, stride in (
                    (inputs, half, early),
                    (half, half, (1, 1, 1)),
                    (half, width, late),
                    (width, width, (1, 1, 1)),
                )
            ]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(n) for n in (half, half, width)])

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> tokens (B, d, h, w, E)."""
        *others, last = self.convs
        x = patch
        for conv, norm in zip(others, self.norms, strict=True):
            x = _to_map(norm(_to_tokens(nn.functional.gelu(conv(x)))))
        return _to_tokens(last(x))


class Resample(nn.Module):
    """LayerNorm, and a convolution of maps to half or, transposed, to twice the resolution."""

    def __init__(self, width: int, conv: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = conv

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, d, h, w, E) -> (B, d/2, h/2, w/2, E'), or (B, 2d, 2h, 2w, E')."""
        return _to_tokens(self.conv(_to_map(self.norm(tokens))))


def _to_tokens(x: Tensor) -> Tensor:
    """(B, E, d, h, w) -> (B, d, h, w, E)."""
    return x.movedim(1, -1)


def _to_map(tokens: Tensor) -> Tensor:
    """(B, d, h, w, E) -> (B, E, d, h, w)."""
    return tokens.movedim(-1, 1)


BASELINE = Baseline(
    config_type=NnFormerConfig,
    build=NnFormer,
    sizes={
        "paper": ((64, 128, 128), NnFormerConfig()),
        "small": (
            (64, 64, 64),
            NnFormerConfig(embedding_stride_dhw=(2, 2, 2), width=48, num_heads=(3, 6, 12, 24)),
        ),
        "tiny": ((32, 32, 32), NnFormerConfig(embedding_stride_dhw=(2, 2, 2), width=8, num_heads=(1, 2, 2, 4))),
    },
)

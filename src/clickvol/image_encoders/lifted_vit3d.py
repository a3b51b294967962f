"""SAM's ViT lifted to volumes, shared by the 3D methods.

The published networks copy a 128^3 patch to three channels, enlarge it to 512^3, send each of the 512
slices through SAM's 16x16 patch embedding and join 16 slices by a depth-wise convolution. All of that
is linear, so here it is one convolution on the patch itself (`FoldedEmbedding`), with the published
parameters. Axes are (d, h, w) throughout.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.text_alignment import TextAlignment, TextAlignmentConfig
from clickvol.layers.adapters import AdapterInitialisation
from clickvol.layers.conv3d import conv3
from clickvol.layers.matrix_work import without_autocast
from clickvol.layers.norms import ChannelLayerNorm
from clickvol.layers.vit import LiftedBlock, SecondAdapter


def channels_of(channel_sources: tuple[int, int, int]) -> int:
    """Return the channels of a patch whose channels feed three colours; ConfigError for one that feeds none."""
    number = max(channel_sources) + 1
    if {*channel_sources} != {*range(number)}:
        raise ConfigError(f"channel_sources {channel_sources} must name the channels 0, 1, ... without a gap")
    return number


@dataclass(frozen=True, kw_only=True)
class LiftedVitConfig:
    """Sizes of the lifted encoder. The defaults are the published ones (SAM ViT-B).

    Attributes:
        channel_sources: which channel of the patch feeds each of SAM's three colour channels: (0, 0, 0) copies
            the one channel of a scan; TAGS has the scan twice and an organ mask, (0, 0, 1).
        alignment: text alignment after each tap (TAGS); None otherwise.
        mlp_ratio: hidden width of the MLP over the token width.
        enlargement: how often the patch is enlarged before the 16-voxel embedding: 1, 2, 4, 8 or 16. A token
            then covers 16 / enlargement voxels per axis.
        tokens_dhw: tokens per axis that the position tables are made for.
        position_table_side: side of the table of in-plane positions; 64 in SAM, pooled to the tokens.
        window: side of the cubic attention window in tokens.
        shift_windows: shift the windows of every second block, beginning with the first.
        local_table_window: window that the relative tables of ordinary blocks were made for (14 in SAM).
        global_table_window: the same for the blocks that are global in SAM (64).
        global_blocks: indices of those blocks. Here too they use the cubic window: only the length of their
            tables differs.
        taps: indices of the blocks whose output becomes a feature map, shallow to deep.
        second_adapter: "doubled" as in the published ProMISe-3D code, "plain", or "none" (3DSAM-adapter).
        depth_position_start: initial value of the depth positions; 1 as published.
    """

    kind: Literal["lifted_vit3d"] = "lifted_vit3d"
    channel_sources: tuple[int, int, int] = (0, 0, 0)
    alignment: TextAlignmentConfig | None = None
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    enlargement: int = 4
    tokens_dhw: tuple[int, int, int] = (32, 32, 32)
    position_table_side: int = 64
    window: int = 8
    shift_windows: bool = True
    local_table_window: int = 14
    global_table_window: int = 64
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    taps: tuple[int, ...] = (2, 5, 8, 11)
    feature_width: int = 256
    second_adapter: SecondAdapter = "doubled"
    adapter_initialisation: AdapterInitialisation = "default"
    adapter_final_relu: bool = True
    depth_position_start: float = 1.0

    def __post_init__(self) -> None:
        if self.enlargement not in (1, 2, 4, 8, 16):
            raise ConfigError(f"enlargement is {self.enlargement}, but only 1, 2, 4, 8 and 16 divide a token")
        if self.width % self.num_heads:
            raise ConfigError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if (
            not self.taps
            or list(self.taps) != sorted(set(self.taps))
            or self.taps[0] < 0
            or self.taps[-1] >= self.depth
        ):
            raise ConfigError(f"taps {self.taps} must be increasing block indices below depth {self.depth}")
        channels_of(self.channel_sources)

    @property
    def num_channels(self) -> int:
        """Channels of a patch."""
        return channels_of(self.channel_sources)

    @property
    def token_stride(self) -> int:
        """Voxels of the patch per token and axis."""
        return EMBEDDING_SIDE // self.enlargement


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Feature maps of a patch, shallow to deep.

    Attributes:
        maps: each (B, E, d, h, w).
        aligned: each (B, E_text, d, h, w), tokens in the space of text embeddings, not normalised; empty
            where the encoder has no text alignment.
    """

    maps: tuple[Tensor, ...]
    aligned: tuple[Tensor, ...] = ()

    @property
    def deepest(self) -> Tensor:
        """The map that the click acts on."""
        return self.maps[-1]


EMBEDDING_SIDE = 16
"""Voxels of the enlarged patch per token and axis: SAM's patch embedding, and the slices per token."""


def interpolation_taps(enlargement: int, *, like: Tensor) -> Tensor:
    """Return how 16 enlarged voxels of a token read the patch: (16, 16 / enlargement + 2).

    Linear enlargement with align_corners false reads the coarse place (o + 0.5) / enlargement - 0.5 for
    the fine voxel o. The first column is the coarse voxel before the token.
    """
    stride = EMBEDDING_SIDE // enlargement
    fine = torch.arange(EMBEDDING_SIDE, device=like.device, dtype=torch.float64)
    place = (fine + 0.5) / enlargement - 0.5
    coarse = torch.arange(-1, stride + 1, device=like.device, dtype=torch.float64)
    return (1 - (place[:, None] - coarse[None, :]).abs()).clamp(min=0).to(like.dtype)


class FoldedEmbedding(nn.Module):
    """Patch to tokens in one convolution.

    Kernel 16 / r + 2 and stride 16 / r on the patch with one voxel of replicate padding, r being the
    enlargement. The kernel is remade from the published parameters on each call, so both of them can
    be trained. For an enlargement of 1 nothing is interpolated and the outer taps are zero.
    """

    def __init__(self, config: LiftedVitConfig) -> None:
        super().__init__()
        self.enlargement = config.enlargement
        self.stride = config.token_stride
        self.channel_sources = config.channel_sources
        # SAM's patch embedding, and the convolution over the slices of a token.
        side = EMBEDDING_SIDE
        self.patch_embed = nn.Conv2d(3, config.width, kernel_size=side, stride=side)
        self.slice_embed = nn.Conv3d(config.width, config.width, kernel_size=(side, 1, 1), groups=config.width)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the kernel (E, C, k, k, k) in (d, h, w) and the bias (E,)."""
        weight = self.patch_embed.weight
        num_channels = max(self.channel_sources) + 1
        # A channel that feeds several of SAM's has the sum of their weights.
        shape = (weight.shape[0], num_channels, *weight.shape[2:])
        planar = weight.new_zeros(shape)
        for channel, source in enumerate(self.channel_sources):
            planar = planar.clone()
            planar[:, source] += weight[:, channel]
        along_d = self.slice_embed.weight[:, 0, :, 0, 0]
        taps = interpolation_taps(self.enlargement, like=planar)
        kernel = torch.einsum("ed,da,enhw,hb,wc->enabc", along_d, taps, planar, taps, taps)
        planar_bias, slice_bias = self.patch_embed.bias, self.slice_embed.bias
        if planar_bias is None or slice_bias is None:
            raise ConfigError("the embedding was built without biases")
        bias = slice_bias + along_d.sum(dim=1) * planar_bias
        return kernel, bias

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) normalised -> (B, d, h, w, E), float32."""
        # As a linear layer over what each token sees it gives tokens in their order in memory. In
        # float32, whatever the rest is in: it is 0.1 % of the work and everything is built on it.
        with without_autocast(patch.device):
            kernel, bias = self.folded()
            seen = F.pad(patch, (1,) * 6, mode="replicate")
            for axis in (2, 3, 4):
                seen = seen.unfold(axis, kernel.shape[-1], self.stride)
            return F.linear(seen.movedim(1, 4).flatten(4), kernel.flatten(1), bias)


def make_neck(width: int, feature_width: int) -> nn.Sequential:
    """Return the block that turns tokens into a feature map: (B, E, d, h, w) -> (B, F, d, h, w)."""
    return nn.Sequential(
        nn.Conv3d(width, feature_width, kernel_size=1, bias=False),
        ChannelLayerNorm(feature_width),
        conv3(feature_width, feature_width),
        ChannelLayerNorm(feature_width),
    )


class LiftedVit3d(nn.Module):
    """SAM's ViT over a grid of 3D tokens: (B, C, D, H, W) -> ImageFeatures.

    Attributes:
        checkpoint_blocks: in training keep of each block the tokens before its residual additions alone
            and do the rest again in the backward pass. ViT-B on 128^3 needs it; False by default.
    """

    def __init__(self, config: LiftedVitConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_blocks = False
        self.embedding = FoldedEmbedding(config)
        side = config.position_table_side
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.width))
        start = torch.full((1, config.tokens_dhw[0], config.width), config.depth_position_start)
        self.depth_embed = nn.Parameter(start)
        self.blocks = nn.ModuleList([_make_block(config, i) for i in range(config.depth)])
        self.necks = nn.ModuleList([make_neck(config.width, config.feature_width) for _ in config.taps])
        self.alignments = (
            None
            if config.alignment is None
            else nn.ModuleList([TextAlignment(config.width, config.alignment) for _ in config.taps])
        )

    def forward(self, patch: Tensor) -> ImageFeatures:
        """Encode a normalised patch (B, C, D, H, W); sides are multiples of the token stride, else ConfigError.

        Returns:
            One map per tap, (B, feature_width, D / stride, H / stride, W / stride).
        """
        stride = self.config.token_stride
        if (count := patch.shape[1]) != (expected := self.config.num_channels):
            raise ConfigError(f"the patch has {count} channels, but this network takes {expected}")
        if any(n % stride for n in patch.shape[2:]):
            raise ConfigError(
                f"the patch has shape (D, H, W) {tuple(patch.shape[2:])}, but every side must be a "
                f"multiple of {stride}"
            )
        tokens = self.embedding(patch)
        tokens = tokens + self._positions(tokens)
        maps: list[Tensor] = []
        aligned: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            tokens = self._run_block(cast(LiftedBlock, block), tokens)
            if index not in self.config.taps:
                continue
            if self.alignments is not None:
                # The neck, and the blocks after this one, see the blended tokens.
                tokens, in_text_space = self.alignments[len(maps)](tokens)
                aligned.append(in_text_space.permute(0, 4, 1, 2, 3))
            maps.append(self.necks[len(maps)](tokens.permute(0, 4, 1, 2, 3)))
        return ImageFeatures(tuple(maps), tuple(aligned))

    def _run_block(self, block: LiftedBlock, tokens: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            # Nobody else has these tokens: the maps are made from them by convolutions.
            return block.update_(tokens)
        if self.checkpoint_blocks:
            return block.forward_again(tokens)
        return torch.as_tensor(block(tokens))

    def foundation_parameter_names(self) -> tuple[str, ...]:
        """Return the parameters that the published methods keep as SAM has them.

        SAM's norms are not among them: the published methods train those.
        """
        frozen = re.compile(
            r"pos_embed|embedding\.patch_embed\..+"
            r"|blocks\.\d+\.(attn\.(qkv|proj)\..+|attn\.rel_pos_[hw]|attn\.relative_scale|mlp\..+)"
        )
        return tuple(name for name, _ in self.named_parameters() if frozen.fullmatch(name))

    def _positions(self, tokens: Tensor) -> Tensor:
        """Return the positions of a token grid: (1, d, h, w, E)."""
        d, h, w = tokens.shape[1:4]
        planar = self.pos_embed.permute(0, 3, 1, 2)
        if planar.shape[2] >= h and planar.shape[3] >= w:
            planar = F.adaptive_avg_pool2d(planar, (h, w))
        else:
            planar = F.interpolate(planar, size=(h, w), mode="bilinear", align_corners=False)
        depth: Tensor = self.depth_embed
        if depth.shape[1] != d:
            depth = F.interpolate(depth.mT, size=d, mode="linear", align_corners=False).mT
        return planar.permute(0, 2, 3, 1)[:, None] + depth[:, :, None, None]


def _make_block(config: LiftedVitConfig, index: int) -> LiftedBlock:
    is_global = index in config.global_blocks
    table_window = config.global_table_window if is_global else config.local_table_window
    return LiftedBlock(
        config.width,
        config.num_heads,
        mlp_ratio=config.mlp_ratio,
        window=config.window,
        shifted=config.shift_windows and index % 2 == 0,
        table_rows=2 * table_window - 1,
        second_adapter=config.second_adapter,
        adapter_initialisation=config.adapter_initialisation,
        adapter_final_relu=config.adapter_final_relu,
    )

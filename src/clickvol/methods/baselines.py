"""Networks without clicks to compare with, in the same harness: training, inference, weights.

nnU-Net's network as MONAI's DynUNet, Swin UNETR and UNETR from MONAI, 3D UX-Net and nnFormer. They are slid
over the scan; clicks choose connected parts of what they find.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from clickvol.baselines.monai_networks import (
    DynUnet,
    DynUnetConfig,
    SwinUnetr,
    SwinUnetrConfig,
    Unetr,
    UnetrConfig,
)
from clickvol.baselines.nnformer import NnFormer, NnFormerConfig
from clickvol.baselines.patch_shapes import Triple, require_multiple
from clickvol.baselines.uxnet3d import UxNet3d, UxNet3dConfig
from clickvol.errors import ConfigError
from clickvol.methods.recipe import LossRecipe, Recipe
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts

BodyConfig = Annotated[
    DynUnetConfig | SwinUnetrConfig | UnetrConfig | UxNet3dConfig | NnFormerConfig,
    Field(discriminator="kind"),
]

BASELINE_IDS = ("dynunet", "swin_unetr", "unetr", "uxnet3d", "nnformer")
"""Ids of the networks, which are method ids too."""

PRESETS = ("automatic",)
"""`automatic`: without clicks, by sliding window."""


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """A network without clicks. The defaults are nnU-Net's on cubic voxels.

    Attributes:
        patch_shape_dhw: (D, H, W) of the patch it is made for.
        num_channels: channels of a patch.
        body: which network, and its sizes.
    """

    patch_shape_dhw: tuple[int, int, int] = (128, 128, 128)
    num_channels: int = 1
    body: BodyConfig = field(default_factory=DynUnetConfig)

    def __post_init__(self) -> None:
        if self.num_channels < 1:
            raise ConfigError(f"num_channels is {self.num_channels}, but a patch has at least one channel")
        require_multiple(self.patch_shape_dhw, self.patch_step_dhw, self.body.kind)

    @property
    def is_automatic(self) -> bool:
        """Tell whether the network takes no clicks: none of these does."""
        return True

    @property
    def patch_step_dhw(self) -> tuple[int, int, int]:
        """What every side of a patch must be a multiple of; the patch itself where no other one is taken."""
        return self.body.patch_step_dhw(self.patch_shape_dhw)


@dataclass(frozen=True, slots=True)
class AnsweredPatch:
    """A patch after the whole network, since no click changes anything.

    Attributes:
        logits: (B, 2, D, H, W).
    """

    logits: Tensor


class BaselineSegmenter(VolumeSegmenter[AnsweredPatch]):
    """A network without clicks behind the interface of those that take them."""

    config: BaselineConfig

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.body = _build_body(config)

    def encode_image(self, patch: Tensor) -> AnsweredPatch:
        """Do everything.

        Args:
            patch: (B, C, D, H, W); channel 0 is the normalised scan.

        Raises:
            ConfigError: for a shape that the network does not take.
        """
        return AnsweredPatch(torch.as_tensor(self.body(patch)))

    def decode(self, encoded: AnsweredPatch, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """Return the answer, (B, 2, D, H, W) logits; prompts and prior change nothing."""
        del prompts, prior
        return encoded.logits


def _build_body(config: BaselineConfig) -> nn.Module:
    body, shape, channels = config.body, config.patch_shape_dhw, config.num_channels
    if isinstance(body, DynUnetConfig):
        return DynUnet(body, shape, channels)
    if isinstance(body, SwinUnetrConfig):
        return SwinUnetr(body, channels)
    if isinstance(body, UnetrConfig):
        return Unetr(body, shape, channels)
    if isinstance(body, NnFormerConfig):
        return NnFormer(body, shape, channels)
    return UxNet3d(body, channels)


# Patch and network. "paper": as published. nnU-Net plans its patch from the data; 128^3 is what it takes for
# cubic voxels. On CT the papers of Swin UNETR, UNETR and 3D UX-Net cut 96^3, that of nnFormer 64 x 128^2.
# "small": narrower, so that a CPU trains it; forward and backward of a patch in bfloat16 take 0.5 to 1.4 s of
# one core (AMD EPYC with AVX-512 BF16). Swin UNETR's widths are multiples of 12 only; its windows of 7^3 tokens
# alone would take four times as long as all the rest.
_SIZES: dict[str, dict[str, tuple[Triple, BodyConfig]]] = {
    "paper": {
        "dynunet": ((128, 128, 128), DynUnetConfig()),
        "swin_unetr": ((96, 96, 96), SwinUnetrConfig()),
        "unetr": ((96, 96, 96), UnetrConfig()),
        "uxnet3d": ((96, 96, 96), UxNet3dConfig()),
        "nnformer": ((64, 128, 128), NnFormerConfig()),
    },
    "small": {
        "dynunet": ((64, 64, 64), DynUnetConfig(first_width=16, largest_width=256)),
        "swin_unetr": ((64, 64, 64), SwinUnetrConfig(width=24, window=4)),
        "unetr": ((64, 64, 64), UnetrConfig(width=192, mlp_width=768, num_heads=6)),
        "uxnet3d": ((64, 64, 64), UxNet3dConfig(width=16)),
        "nnformer": (
            (64, 64, 64),
            NnFormerConfig(embedding_stride_dhw=(2, 2, 2), width=48, num_heads=(3, 6, 12, 24)),
        ),
    },
    "tiny": {
        "dynunet": ((32, 32, 32), DynUnetConfig(first_width=4, largest_width=16)),
        "swin_unetr": ((32, 32, 64), SwinUnetrConfig(width=12, num_heads=(1, 2, 2, 4), window=4)),
        "unetr": ((32, 32, 32), UnetrConfig(width=24, mlp_width=48, num_heads=2, decoder_width=4)),
        "uxnet3d": ((32, 32, 32), UxNet3dConfig(width=4, depths=(1, 1, 1, 1))),
        "nnformer": (
            (32, 32, 32),
            NnFormerConfig(embedding_stride_dhw=(2, 2, 2), width=8, num_heads=(1, 2, 2, 4)),
        ),
    },
}


def baseline_recipe(kind: str) -> Callable[[str, str], Recipe]:
    """Return what gives the recipes of a baseline: (preset, size) -> recipe.

    Args:
        kind: one of `BASELINE_IDS`.

    Raises:
        ConfigError: for another one.
    """
    if kind not in BASELINE_IDS:
        raise ConfigError(f"there is no baseline {kind!r}; choose one of {', '.join(BASELINE_IDS)}")

    def recipe(preset: str = "automatic", size: str = "paper") -> Recipe:
        """Return the recipe of a preset and a size; ConfigError for an unknown one."""
        if preset not in PRESETS:
            raise ConfigError(f"{kind} has no preset {preset!r}; choose one of {', '.join(PRESETS)}")
        # Dice and cross-entropy alike, as nnU-Net and all papers here train; the same for all, so that
        # only the networks differ.
        return Recipe(
            method=kind,
            preset=preset,
            network=baseline_network(kind, size),
            loss=LossRecipe(),
            training_clicks=None,
            num_test_clicks=0,
        )

    return recipe


def baseline_network(kind: str, size: str) -> BaselineConfig:
    """Return a network by id and size.

    Args:
        kind: one of `BASELINE_IDS`.
        size: "paper" (as published), "small" (64^3 patches, 6 to 16 M parameters, trainable on a CPU) or "tiny"
            (tests).

    Raises:
        ConfigError: for an unknown size.
    """
    if size not in _SIZES:
        raise ConfigError(f"there is no size {size!r}; choose one of {', '.join(_SIZES)}")
    patch_shape_dhw, body = _SIZES[size][kind]
    return BaselineConfig(patch_shape_dhw=patch_shape_dhw, body=body)

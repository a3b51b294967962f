"""Networks without clicks to compare with, in the same harness: training, inference, weights.

Which there are, `methods.registry` says; each is a file of `baselines`. They are slid over the scan; clicks
choose connected parts of the result.
"""

from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from clickvol.baselines.baseline import BodyConfig, Triple, require_multiple
from clickvol.errors import ConfigError
from clickvol.methods.recipe import LossRecipe, Method, Recipe
from clickvol.methods.registry import find_baseline
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts

BodyT = TypeVar("BodyT", bound=BodyConfig)

PRESETS = ("automatic",)
"""`automatic`: without clicks, by sliding window."""


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(Generic[BodyT]):
    """A network without clicks: (D, H, W) and channels of the patch it is made for, and which one it is."""

    patch_shape_dhw: tuple[int, int, int] = (128, 128, 128)
    num_channels: int = 1
    body: BodyT

    def __post_init__(self) -> None:
        if self.num_channels < 1:
            raise ConfigError(f"num_channels is {self.num_channels}, but a patch has at least one channel")
        require_multiple(self.patch_shape_dhw, self.patch_step_dhw, self.body.kind)

    @property
    def is_automatic(self) -> bool:
        """Tell whether the network takes no clicks: none of these does."""
        return True

    @property
    def patch_step_dhw(self) -> Triple:
        """What every side of a patch must be a multiple of; the patch itself where it takes no other one."""
        return self.body.patch_step_dhw(self.patch_shape_dhw)


@dataclass(frozen=True, slots=True)
class AnsweredPatch:
    """A patch after the whole network, since no click changes anything: logits (B, 2, D, H, W)."""

    logits: Tensor


class BaselineSegmenter(VolumeSegmenter[AnsweredPatch]):
    """A network without clicks behind the interface of those that take them."""

    config: BaselineConfig[BodyConfig]

    def __init__(self, config: BaselineConfig[BodyConfig]) -> None:
        super().__init__()
        self.config = config
        build = find_baseline(config.body.kind).build
        self.body = build(config.body, config.patch_shape_dhw, config.num_channels)

    def encode_image(self, patch: Tensor) -> AnsweredPatch:
        """Do everything; ConfigError for a shape that the network does not take."""
        return AnsweredPatch(torch.as_tensor(self.body(patch)))

    def decode(self, encoded: AnsweredPatch, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """Return the answer, (B, 2, D, H, W) logits; prompts and prior change nothing."""
        del prompts, prior
        return encoded.logits


def baseline_method(kind: str) -> Method:
    """Return how the networks of a baseline are described, built and trained; else ConfigError."""
    # A card's network is read as exactly this baseline's; the type is made here, of what was only now imported.
    config_type = BaselineConfig[find_baseline(kind).config_type]  # type: ignore[misc, valid-type]
    return Method(config_type, BaselineSegmenter, partial(baseline_recipe, kind))


def baseline_recipe(kind: str, preset: str = "automatic", size: str = "paper") -> Recipe:
    """Return a recipe: Dice and cross-entropy alike, as nnU-Net and all papers here; only networks differ."""
    if preset not in PRESETS:
        raise ConfigError(f"{kind} has no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return Recipe(
        method=kind,
        preset=preset,
        network=baseline_network(kind, size),
        loss=LossRecipe(),
        training_clicks=None,
    )


def baseline_network(kind: str, size: str) -> BaselineConfig[BodyConfig]:
    """Return a network of `baseline_ids`: "paper" (as published), "small" or "tiny" (tests); else ConfigError.

    "small" has 64^3 patches and 6 to 16 M parameters, and a CPU can train it.
    """
    sizes = find_baseline(kind).sizes
    if size not in sizes:
        raise ConfigError(f"there is no size {size!r}; choose one of {', '.join(sizes)}")
    patch_shape_dhw, body = sizes[size]
    return BaselineConfig(patch_shape_dhw=patch_shape_dhw, body=body)

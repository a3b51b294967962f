"""What every network here says of itself, and which patches it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from clickvol.errors import ConfigError

NUM_CLASSES = 2
"""Background and object."""

Triple = tuple[int, int, int]


class BodyConfig(Protocol):
    """What every network's configuration says; the rest is its own."""

    @property
    def kind(self) -> str:
        """Id of the network, which tells the networks apart in a file."""

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return what every side of a patch must be a multiple of; the patch itself where it takes no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A network without clicks, as `methods.registry` finds it.

    Attributes:
        config_type: dataclass of its configuration.
        build: configuration, (D, H, W) of the patch and number of its channels -> network, which makes
            (B, 2, D, H, W) logits of (B, C, D, H, W).
        sizes: patch and configuration of "paper" (as published; on CT the papers of Swin UNETR, UNETR and
            3D UX-Net cut 96^3, that of nnFormer 64 x 128^2), "small" (so narrow that a CPU trains it: forward
            and backward of a patch in bfloat16 take 0.5 to 1.4 s of one core, AMD EPYC with AVX-512 BF16) and
            "tiny" (tests).
    """

    config_type: type
    build: Callable[[Any, Triple, int], nn.Module]
    sizes: Mapping[str, tuple[Triple, BodyConfig]]


def shape_dhw(patch: Tensor) -> Triple:
    """Return (D, H, W) of a patch (B, C, D, H, W)."""
    d, h, w = patch.shape[2:]
    return (d, h, w)


def require_multiple(patch_shape_dhw: Triple, step_dhw: Triple, network: str) -> None:
    """Refuse, as ConfigError, a patch whose sides are not multiples of what a network halves."""
    if any(n < k or n % k for n, k in zip(patch_shape_dhw, step_dhw, strict=True)):
        raise ConfigError(
            f"a patch of {patch_shape_dhw} does not suit {network}, whose patches have sides that are "
            f"multiples of {step_dhw}; choose another patch shape"
        )


def require_side(patch_shape_dhw: Triple, least: int, network: str) -> None:
    """Refuse, as ConfigError, a patch that a network would shrink to one cell, which nothing can normalise."""
    if max(patch_shape_dhw) < least:
        raise ConfigError(
            f"a patch of {patch_shape_dhw} is too small for {network}, whose coarsest map would be one cell; "
            f"take a side of {least} or more"
        )


def require_same(patch_shape_dhw: Triple, made_for_dhw: Triple, network: str) -> None:
    """Refuse, as ConfigError, a patch of another shape than a network has learned positions for."""
    if patch_shape_dhw != made_for_dhw:
        raise ConfigError(
            f"a patch of {patch_shape_dhw} does not suit this {network}, which has learned positions in "
            f"patches of {made_for_dhw}; cut the patch to that shape"
        )

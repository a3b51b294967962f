"""Method id -> what it is made of: a plain table, nothing is scanned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from clickvol.errors import ConfigError
from clickvol.methods.baselines import (
    BASELINE_IDS,
    BaselineConfig,
    BaselineSegmenter,
    baseline_recipe,
)
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise2d import Promise2d, Promise2dConfig
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import Recipe
from clickvol.methods.sam2d import Sam2d, Sam2dConfig
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import tags_recipe


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """How the networks of a method are described and built.

    Attributes:
        config_type: dataclass of the configuration.
        build: configuration -> network with random weights.
    """

    config_type: type
    build: Callable[[Any], nn.Module]


_LIFTED = NetworkKind(LiftedSegmenterConfig, LiftedSegmenter)

_NETWORKS = {
    "promise3d": _LIFTED,
    "sam3d_adapter": _LIFTED,
    "tags": _LIFTED,
    "promise2d": NetworkKind(Promise2dConfig, Promise2d),
    "sam2d": NetworkKind(Sam2dConfig, Sam2d),
    **dict.fromkeys(BASELINE_IDS, NetworkKind(BaselineConfig, BaselineSegmenter)),
}

_RECIPES: dict[str, Callable[[str, str], Recipe]] = {
    "promise3d": promise3d_recipe,
    "sam3d_adapter": sam3d_adapter_recipe,
    "tags": tags_recipe,
    **{kind: baseline_recipe(kind) for kind in BASELINE_IDS},
}


def network_kind(method: str) -> NetworkKind:
    """Return how the networks of a method are built.

    Raises:
        ConfigError: for an unknown method.
    """
    if method not in _NETWORKS:
        raise ConfigError(f"there is no method {method!r}; choose one of {', '.join(_NETWORKS)}")
    return _NETWORKS[method]


def find_recipe(method: str, preset: str, size: str) -> Recipe:
    """Return a 3D system to train.

    Args:
        method: id of a 3D method.
        preset: one of the method's presets, see its page.
        size: see `methods.sizes.network_size`; of a baseline, `methods.baselines.baseline_network`.

    Raises:
        ConfigError: for an unknown method, preset or size.
    """
    if method not in _RECIPES:
        raise ConfigError(f"there is no 3D method {method!r}; choose one of {', '.join(_RECIPES)}")
    return _RECIPES[method](preset, size)

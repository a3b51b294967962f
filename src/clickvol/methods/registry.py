"""Method id -> the page that it is on: the one list of methods, a line each.

A page is imported when one of its networks is wanted, so that a model costs what it is made of alone. Training
configurations, model cards and errors take their ids from here. Torch-free.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from clickvol.errors import ConfigError

if TYPE_CHECKING:
    from clickvol.baselines.baseline import Baseline
    from clickvol.methods.recipe import Method, Recipe


@dataclass(frozen=True, slots=True)
class MethodPage:
    """Where a method is written down.

    Attributes:
        module: a page of `methods`, which has its `Method` as `METHOD`; or a network of `baselines`, which
            has its `Baseline` as `BASELINE`.
        is_baseline: a network without clicks, to compare with.
        dimensions: 3 for scans, 2 for images.
        is_trained: whether training configurations may name it.
    """

    module: str
    is_baseline: bool = False
    dimensions: int = 3
    is_trained: bool = True


METHODS: dict[str, MethodPage] = {
    "promise3d": MethodPage("clickvol.methods.promise3d"),
    "sam3d_adapter": MethodPage("clickvol.methods.sam3d_adapter"),
    "tags": MethodPage("clickvol.methods.tags"),
    "promise2d": MethodPage("clickvol.methods.promise2d", dimensions=2),
    "sam2d": MethodPage("clickvol.methods.sam2d", dimensions=2, is_trained=False),
    "dynunet": MethodPage("clickvol.baselines.dynunet", is_baseline=True),
    "swin_unetr": MethodPage("clickvol.baselines.swin_unetr", is_baseline=True),
    "unetr": MethodPage("clickvol.baselines.unetr", is_baseline=True),
    "uxnet3d": MethodPage("clickvol.baselines.uxnet3d", is_baseline=True),
    "nnformer": MethodPage("clickvol.baselines.nnformer", is_baseline=True),
}


def baseline_ids() -> tuple[str, ...]:
    """Return the ids of the networks without clicks."""
    return tuple(name for name, page in METHODS.items() if page.is_baseline)


def find_method(method: str) -> "Method":
    """Return how the networks of a method are described, built and trained; ConfigError for an unknown one."""
    page = known_method(method)
    if page.is_baseline:
        from clickvol.methods.baselines import baseline_method

        return baseline_method(method)
    known: Method = import_module(page.module).METHOD
    return known


def find_baseline(method: str) -> "Baseline":
    """Return what a network without clicks, of `baseline_ids`, says of itself; else ConfigError."""
    if method not in baseline_ids():
        raise ConfigError(f"there is no baseline {method!r}; choose one of {', '.join(baseline_ids())}")
    baseline: Baseline = import_module(METHODS[method].module).BASELINE
    return baseline


def find_recipe(method: str, preset: str, size: str) -> "Recipe":
    """Return a 3D system to train; ConfigError for an unknown method, preset or size.

    Presets are listed on the method's page, sizes in `methods.sizes.network_size` and `baseline_network`.
    """
    known = [name for name, page in METHODS.items() if page.dimensions == 3]
    recipe = find_method(method).recipe if method in known else None
    if recipe is None:
        raise ConfigError(f"there is no 3D method {method!r}; choose one of {', '.join(known)}")
    return recipe(preset, size)


def known_method(method: str) -> MethodPage:
    """Return where a method is written down; nothing is imported. ConfigError for an unknown method."""
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; choose one of {', '.join(METHODS)}")
    return METHODS[method]


def valid_method(method: str) -> str:
    """Return the id of a method as it is: the check of a pydantic field."""
    return _one_of(method, tuple(METHODS))


def valid_trained_method(method: str) -> str:
    """Return the id of a method that can be trained as it is: the check of a pydantic field."""
    return _one_of(method, tuple(name for name, page in METHODS.items() if page.is_trained))


def _one_of(method: str, known: tuple[str, ...]) -> str:
    if method not in known:
        raise ValueError(f"{method!r} is no method; choose one of {', '.join(known)}")
    return method

"""A model ready to be used: its card, its network, and how to compute with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clickvol.errors import ConfigError, DamagedWeightsError, ModelNotFoundError
from clickvol.layers.state import state_faults
from clickvol.methods.registry import find_method
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.weights.card import DEFAULT_MODEL_ID, ModelCard, find_base, find_card, read_card
from clickvol.weights.device import choose_device
from clickvol.weights.difference import add_difference
from clickvol.weights.precision import choose_precision
from clickvol.weights.safe_file import read_weights

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A 3D network in evaluation mode on a device; the matrix work has the precision, the rest is float32."""

    card: ModelCard
    network: VolumeSegmenter[Any]
    device: torch.device
    precision: torch.dtype


class _NoValues(TorchFunctionMode):
    """Leaves out `normal_`, which on no device draws nothing and imports torch._dynamo, a second of work."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Return what a function returns."""
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def load_model(id_or_path: str | Path = DEFAULT_MODEL_ID, *, device: str = "auto") -> LoadedModel:
    """Load a model for volumes by id or path.

    Args:
        id_or_path: id of a shipped or fetched model, or a path to a card, a weights file beside its card, or
            a folder with one card.
        device: "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ModelNotFoundError: when there is no such model, its weights are missing, or it is not one for
            volumes.
        DamagedWeightsError: when hash, container or keys are not what the card says.
        DeviceError: when the device is not there.
    """
    chosen = choose_device(device)
    # Which class it is, the card says; here it is asked only for what all have in common.
    card, network = load_network(id_or_path, VolumeSegmenter)  # type: ignore[type-abstract]
    return LoadedModel(card, network.to(chosen), chosen, choose_precision(chosen))


def load_network(id_or_path: str | Path, kind: type[NetworkT]) -> tuple[ModelCard, NetworkT]:
    """Load a network of a kind on the CPU, in evaluation mode, without gradients.

    Raises:
        ModelNotFoundError: when there is no such model, its weights are missing, or it is of another kind.
        DamagedWeightsError: when hash, container or keys are not what the card says.
    """
    card_path = find_card(id_or_path)
    card = read_card(card_path)
    # Random starting values would be drawn and thrown away: build on no device, then place the weights.
    with torch.device("meta"), _NoValues():
        network = _build(card, card_path)
    if not isinstance(network, kind):
        raise ModelNotFoundError(
            f"{card.id} is a network of the method {card.method!r}, which cannot do this; "
            f"models list shows the others"
        )
    state = _read_state(card, card_path)
    if faults := state_faults(state, network.state_dict()):
        raise DamagedWeightsError(
            f"the weights of {card.id} do not fit its card: {', '.join(faults[:3])}; take both again from "
            "where they came"
        )
    network.load_state_dict(state, assign=True)
    return card, network.eval().requires_grad_(requires_grad=False)


def _read_state(card: ModelCard, card_path: Path) -> dict[str, Tensor]:
    """Return all tensors of a model; those of an adapted one are its base's with its difference added."""
    # A weights file is named by its card, never led elsewhere by it.
    weights_name = Path(card.weights_file).name
    if not weights_name:
        raise DamagedWeightsError(f"{card_path} names no weights file ({card.weights_file!r}); take it again")
    base_path = find_base(card, card_path)
    state = read_weights(card_path.with_name(weights_name), sha256=card.sha256)
    if base_path is None:
        return state
    return add_difference(_read_state(read_card(base_path), base_path), state)


def _build(card: ModelCard, card_path: Path) -> nn.Module:
    try:
        return find_method(card.method).build(network_config(card.method, card.network))
    except (ValidationError, ConfigError) as error:
        first = str(error).splitlines()[0]
        raise DamagedWeightsError(
            f"{card_path} describes no network of this version ({first}); update clickvol"
        ) from error


def network_config(method: str, content: dict[str, Any]) -> object:
    """Return the configuration that a card holds as plain values, of the method's own type.

    Raises:
        ConfigError: for an unknown method or option, or values that contradict; ValidationError for other
            types.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(find_method(method).config_type)
    config: object = adapter.validate_python(content)
    unknown = _unknown_names(content, adapter.dump_python(config))
    if unknown:
        raise ConfigError(f"unknown option {', '.join(unknown)}")
    return config


def network_content(method: str, config: object) -> dict[str, Any]:
    """Return a configuration as the plain values that a card holds."""
    adapter: TypeAdapter[Any] = TypeAdapter(find_method(method).config_type)
    content: dict[str, Any] = adapter.dump_python(config, mode="json")
    return content


def _unknown_names(content: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Return the dotted names in `content`, at any depth, that are not in `known`."""
    names: list[str] = []
    for name, value in content.items():
        if name not in known:
            names.append(name)
        elif isinstance(value, dict):
            names += [f"{name}.{inner}" for inner in _unknown_names(value, known[name])]
    return names

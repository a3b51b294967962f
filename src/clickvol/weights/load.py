"""A model ready to be used: its card, its network, and how to compute with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.methods.promise3d import Promise3d, Promise3dConfig
from clickvol.weights.card import DEFAULT_MODEL_ID, ModelCard, find_card, read_card
from clickvol.weights.device import choose_device, choose_precision
from clickvol.weights.safe_file import read_weights


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A network with its weights on a device.

    Attributes:
        card: where it comes from and what it is for.
        network: in evaluation mode.
        device: where it computes.
        precision: number format of the matrix work; the rest stays float32.
    """

    card: ModelCard
    network: Promise3d
    device: torch.device
    precision: torch.dtype


def load_model(id_or_path: str | Path = DEFAULT_MODEL_ID, *, device: str = "auto") -> LoadedModel:
    """Load a model by id or path.

    Args:
        id_or_path: id of a shipped model, or a path to a card, a weights file beside its card, or a
            folder with one card.
        device: "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ModelNotFoundError: when there is no such model, or its weights are missing.
        DamagedWeightsError: when hash, container or keys are not what the card says.
        DeviceError: when the device is not there.
    """
    chosen = choose_device(device)
    card_path = find_card(id_or_path)
    card = read_card(card_path)
    # A weights file is named by its card, never led elsewhere by it.
    weights_name = Path(card.weights_file).name
    if not weights_name:
        msg = f"{card_path} names no weights file ({card.weights_file!r}); take it again"
        raise DamagedWeightsError(msg)
    state = read_weights(card_path.with_name(weights_name), sha256=card.sha256)
    try:
        config = network_config(card.network)
    except (ValidationError, ConfigError) as error:
        first = str(error).splitlines()[0]
        msg = f"{card_path} describes no network of this version ({first}); update clickvol"
        raise DamagedWeightsError(msg) from error
    # Random starting values would be drawn and thrown away: build on no device, then place the weights.
    with torch.device("meta"):
        network = Promise3d(config)
    expected = network.state_dict()
    missing, unexpected = set(expected) - set(state), set(state) - set(expected)
    misshapen = {n for n in set(expected) & set(state) if state[n].shape != expected[n].shape}
    if missing or unexpected or misshapen:
        msg = (
            f"the weights of {card.id} do not fit its card: missing {sorted(missing)[:3]}, "
            f"unexpected {sorted(unexpected)[:3]}, of another shape {sorted(misshapen)[:3]}; take both "
            "again from where they came"
        )
        raise DamagedWeightsError(msg)
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(requires_grad=False).to(chosen)
    return LoadedModel(card, network, chosen, choose_precision(chosen))


def network_config(content: dict[str, Any]) -> Promise3dConfig:
    """Return the configuration that a card holds as plain values.

    Raises:
        ConfigError: for an option that this version does not know, or values that contradict.
        ValidationError: for values of a wrong type.
    """
    adapter = TypeAdapter(Promise3dConfig)
    config = adapter.validate_python(content)
    unknown = _unknown_names(content, adapter.dump_python(config))
    if unknown:
        msg = f"unknown option {', '.join(unknown)}"
        raise ConfigError(msg)
    return config


def _unknown_names(content: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Return the dotted names in `content`, at any depth, that are not in `known`."""
    names: list[str] = []
    for name, value in content.items():
        if name not in known:
            names.append(name)
        elif isinstance(value, dict):
            names += [f"{name}.{inner}" for inner in _unknown_names(value, known[name])]
    return names

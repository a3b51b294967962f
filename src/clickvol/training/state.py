"""What a run must remember to go on as if it had never stopped."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.volumes.atomic import atomic_path

_PARTS = ("step", "fingerprint", "network", "optimiser", "average")


@dataclass(slots=True, eq=False)
class TrainState:
    """The moving parts of a run.

    Attributes:
        step: optimiser steps done.
        network: the network being trained.
        optimiser: its AdamW.
        average: moving average of the network's parameters, by name.
    """

    step: int
    network: LiftedSegmenter
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]


def save_state(state: TrainState, path: Path, fingerprint: str) -> None:
    """Write a checkpoint; a crash meanwhile leaves the one before.

    Args:
        state: what to keep.
        path: the file.
        fingerprint: text of the configuration; a run with another one does not go on from here.
    """
    content: dict[str, Any] = {
        "step": state.step,
        "fingerprint": fingerprint,
        "network": state.network.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "average": state.average,
    }
    with atomic_path(path, path.suffix) as temporary:
        torch.save(content, temporary)


def restore_state(state: TrainState, path: Path, fingerprint: str) -> None:
    """Read a checkpoint into a state of the same configuration.

    Raises:
        ConfigError: when the checkpoint is damaged, or of another configuration.
    """
    content = _read_content(path)
    if content["fingerprint"] != fingerprint:
        msg = (
            f"{path} was written with another configuration; use --fresh to start again, or another "
            "run.folder"
        )
        raise ConfigError(msg)
    try:
        state.network.load_state_dict(content["network"])
        state.optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, ValueError) as error:
        msg = (
            f"{path} was written with another version of the network; use --fresh to start again, or "
            "another run.folder"
        )
        raise ConfigError(msg) from error
    state.step = content["step"]
    state.average = content["average"]


def _read_content(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote; nothing in the file is ever run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: content[name] for name in _PARTS}
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        msg = f"{path} is not a checkpoint of a training run; use --fresh to start again"
        raise ConfigError(msg) from error

"""What a run must remember to go on as if it had never stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import ConfigError
from clickvol.methods.promise3d import Promise3d
from clickvol.volumes.atomic import atomic_path


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
    network: Promise3d
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
        ConfigError: when the checkpoint is of another configuration.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["fingerprint"] != fingerprint:
        msg = (
            f"{path} was written with another configuration; use --fresh to start again, or another "
            "run.folder"
        )
        raise ConfigError(msg)
    state.step = content["step"]
    state.network.load_state_dict(content["network"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.average = content["average"]

"""The files that a run goes on from: the last state, the best weights, a batch that went wrong."""

import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import ConfigError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.training.state import TrainState
from clickvol.training.tasks.task import Batch

_PARTS = ("step", "fingerprint", "network", "optimiser", "average", "scaler", "best_loss")


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a run keeps itself.

    Attributes:
        folder: of the run.
        fingerprint: text of the configuration; a run with another one does not go on from here.
        writes: False in all processes but the first.
    """

    folder: Path
    fingerprint: str
    writes: bool = True

    @property
    def last(self) -> Path:
        """The whole state after the last checkpoint."""
        return self.folder / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The weights with the lowest validation loss."""
        return self.folder / "best.pt"

    def save(self, state: TrainState) -> None:
        """Write the whole state; a crash or a full disk meanwhile leaves the one before.

        Raises:
            OutputError: when it cannot be written.
        """
        content: dict[str, Any] = {
            "step": state.step,
            "fingerprint": self.fingerprint,
            "network": state.network.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "average": state.average,
            "scaler": state.scaler.state_dict(),
            "best_loss": state.best_loss,
        }
        self._write(content, self.last)

    def save_best(self, state: TrainState) -> None:
        """Write the weights to keep.

        Raises:
            OutputError: when they cannot be written.
        """
        self._write({"step": state.step, "weights": state.weights_to_keep()}, self.best)

    def save_batch(self, batch: Batch, step: int, rank: int) -> Path:
        """Write a batch for somebody to look at; return its path."""
        path = self.folder / f"bad_batch_step{step + 1}_process{rank}.pt"
        with atomic_path(path, path.suffix) as temporary:
            torch.save({f.name: getattr(batch, f.name) for f in fields(batch)}, temporary)
        return path

    def restore(self, state: TrainState) -> None:
        """Read the last state into one of the same configuration.

        Raises:
            ConfigError: when the checkpoint is damaged, or of another configuration.
        """
        content = _read(self.last, _PARTS)
        if content["fingerprint"] != self.fingerprint:
            raise ConfigError(
                f"{self.last} was written with another configuration; use --fresh to start again, or "
                "another run.folder"
            )
        try:
            state.network.load_state_dict(content["network"])
            state.optimiser.load_state_dict(content["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self.last} was written with another version of the network; use --fresh to start "
                "again, or another run.folder"
            ) from error
        if state.scaler.is_enabled():
            state.scaler.load_state_dict(content["scaler"])
        state.step = content["step"]
        state.best_loss = content["best_loss"]
        for name, value in content["average"].items():
            state.average[name].copy_(value)

    def read_best(self) -> dict[str, Tensor]:
        """Return the weights with the lowest validation loss.

        Raises:
            ConfigError: when there are none yet, or the file is damaged.
        """
        if not self.best.is_file():
            raise ConfigError(
                f"{self.best} is not there: no validation has been done yet; train for at least "
                "run.validate_every steps, or set run.keep=last"
            )
        weights: dict[str, Tensor] = _read(self.best, ("weights",))["weights"]
        return weights

    def _write(self, content: dict[str, Any], path: Path) -> None:
        if not self.writes:
            return
        try:
            with atomic_path(path, path.suffix) as temporary:
                torch.save(content, temporary)
        except (RuntimeError, OutputError) as error:
            # torch's own writer tells a full disk by a RuntimeError.
            raise OutputError(
                f"cannot write {path}: {str(error).splitlines()[0]}; the file before is whole: make room "
                "and run the same command again"
            ) from error


def _read(path: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    """Return what was written; nothing in the file is ever run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: content[name] for name in parts}
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"{path} is not a checkpoint of a training run; use --fresh to start again"
        ) from error

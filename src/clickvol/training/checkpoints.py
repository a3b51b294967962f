"""The files that a run goes on from: the last state, the best weights, a batch that went wrong."""

import json
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import ConfigError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.training.state import TrainState
from clickvol.training.tasks.task import Batch

_PARTS = ("step", "samples", "fingerprint", "network", "optimiser", "average", "scaler", "best_loss")

# What decides which tensors there are, and which of them are trained.
_OF_THE_NETWORK = (
    "model.method",
    "model.preset",
    "model.size",
    "tags.",
    "promise2d.",
    "run.trained",
    "run.foundation",
)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a run keeps itself.

    Attributes:
        folder: of the run.
        configuration: of the run, JSON; a run with another network does not go on from here.
        writes: False in all processes but the first.
    """

    folder: Path
    configuration: str
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
            "fingerprint": self.configuration,
            "network": state.network.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "average": state.average,
            "scaler": state.scaler.state_dict(),
            "best_loss": state.best_loss,
            "samples": state.samples,
            "seconds": state.seconds,
        }
        self._write(content, self.last)

    def save_best(self, state: TrainState) -> None:
        """Write the weights to keep; OutputError when they cannot be written."""
        self._write({"step": state.step, "weights": state.weights_to_keep()}, self.best)

    def save_batches(self, batches: list[Batch], step: int, rank: int) -> Path:
        """Write the batches of a step, counted from 0, for somebody to look at; return their path."""
        path = self.folder / f"bad_batch_step{step + 1}_process{rank}.pt"
        with atomic_path(path, path.suffix) as temporary:
            torch.save([asdict(batch) for batch in batches], temporary)
        return path

    def restore(self, state: TrainState) -> dict[str, list[Any]]:
        """Read the last state into one of the same network.

        What the optimiser is told by the configuration stays as the new one has it.

        Returns:
            What differs between the configurations, "section.field" to the old and the new value.

        Raises:
            ConfigError: when the checkpoint is damaged, or of another network.
        """
        content = _read(self.last, _PARTS)
        changes = _changes(json.loads(content["fingerprint"]), json.loads(self.configuration))
        network = {name: values for name, values in changes.items() if name.startswith(_OF_THE_NETWORK)}
        if network:
            name, (old, new) = next(iter(network.items()))
            raise ConfigError(
                f"{self.last} is of another network: {name} was {old} and is {new}; use --fresh to start "
                "again, or another run.folder"
            )
        told = [{k: v for k, v in group.items() if k != "params"} for group in state.optimiser.param_groups]
        try:
            state.network.load_state_dict(content["network"])
            state.optimiser.load_state_dict(content["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self.last} was written with another version of the network; use --fresh to start "
                "again, or another run.folder"
            ) from error
        for group, options in zip(state.optimiser.param_groups, told, strict=True):
            group.update(options)
        if state.scaler.is_enabled() and content["scaler"]:
            state.scaler.load_state_dict(content["scaler"])
        state.step = content["step"]
        state.samples, state.seconds = content["samples"], content.get("seconds", 0.0)
        state.best_loss = content["best_loss"]
        for name, value in content["average"].items():
            state.average[name].copy_(value)
        return changes

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
            # torch's own writer tells a full disk by a RuntimeError that does not say so.
            free = shutil.disk_usage(self.folder).free
            is_full = free < sum(_num_bytes(value) for value in content.values())
            why = "disk full" if is_full else str(error).splitlines()[0]
            raise OutputError(
                f"cannot write {path}: {why}; the file before is whole: make room and run the same "
                "command again"
            ) from error


def _num_bytes(value: Any) -> int:  # noqa: ANN401  # tensors in whatever containers
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(_num_bytes(part) for part in parts)


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what differs, "section.field" to both values; None where there is none."""

    def flat(content: dict[str, Any]) -> dict[str, Any]:
        sections = {k: v if isinstance(v, dict) else {"": v} for k, v in content.items()}
        return {f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()}

    before, after = flat(old), flat(new)
    names = sorted(before.keys() | after.keys())
    return {n: [before.get(n), after.get(n)] for n in names if before.get(n) != after.get(n)}


def _read(path: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    """Return what was written; nothing in the file is ever run."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # What a later version adds may be there or not.
        return content | {name: content[name] for name in parts}
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is not a checkpoint of a training run; use --fresh to start again"
        ) from error

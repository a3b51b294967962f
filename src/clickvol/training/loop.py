"""The training loop, readable from top to bottom."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clickvol.errors import TrainingError
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.config import TrainConfig
from clickvol.training.processes import Processes
from clickvol.training.run_log import RunLog
from clickvol.training.schedule import Schedule, learning_rate
from clickvol.training.state import TrainState
from clickvol.training.tasks.step import SampleNumbers
from clickvol.training.tasks.task import Batch
from clickvol.training.validation import Validator

_LOG_EVERY = 20


@dataclass(frozen=True, slots=True, eq=False)
class Harness:
    """What stands around the loop.

    Attributes:
        processes: this process among those of the run.
        schedule: length and learning rate.
        checkpoints: where the state is kept.
        log: where the figures go.
        validator: evaluates the validation scans now and then; None for never.
        report: called by the first process with the figures of the last 20 steps.
    """

    processes: Processes
    schedule: Schedule
    checkpoints: Checkpoints
    log: RunLog
    validator: Validator | None
    report: Callable[[dict[str, float]], None]


def fit(
    state: TrainState,
    step: nn.Module,
    batches: Iterable[Batch],
    config: TrainConfig,
    harness: Harness,
) -> None:
    """Train until the schedule ends or the batches do; checkpoints on the way and at the end.

    Args:
        state: where the run stands; changed in place.
        step: from a batch to its loss, with the network of the state; see `Task.make_step`.
        batches: of this process, from step `state.step` on, `optimiser.accumulate` of them per step.
        config: of the run.
        harness: what stands around.

    Raises:
        TrainingError: when the loss is no number; the batch is saved beside the checkpoint.
        OutputError: when nothing can be written; the checkpoint before is whole.
    """
    losses: list[float] = []
    overlaps: list[float] = []
    started_at = time.perf_counter()
    state.network.train()
    runner = _for_all_processes(step, harness.processes)
    for rounds in _in_groups(batches, config.optimiser.accumulate):
        rate = learning_rate(state.step, config.optimiser, harness.schedule)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        loss, overlap = _take_gradients(state, runner, rounds, config, harness)
        _update(state, config)
        losses.append(loss)
        overlaps.append(overlap)
        if state.step % _LOG_EVERY == 0:
            seconds = (time.perf_counter() - started_at) / len(losses)
            figures = _figures(state.step, losses, overlaps, rate, seconds, harness.processes)
            harness.log.write(figures)
            harness.report(figures)
            losses, overlaps, started_at = [], [], time.perf_counter()
        if config.run.validate_every and state.step % config.run.validate_every == 0:
            _validate(state, step, harness)
        if state.step % config.run.checkpoint_every == 0:
            harness.checkpoints.save(state)
    harness.checkpoints.save(state)


def _take_gradients(
    state: TrainState,
    runner: nn.Module,
    rounds: list[Batch],
    config: TrainConfig,
    harness: Harness,
) -> tuple[float, float]:
    """Leave the gradient of a step's loss in the parameters; return loss and Dice of this process."""
    processes = harness.processes
    state.optimiser.zero_grad()
    losses, overlaps = [], []
    for number, batch in enumerate(rounds):
        placed = batch.to(processes.device)
        size = len(placed.label)
        before = state.step * len(rounds) + number
        numbers = SampleNumbers(state.step, (before * processes.count + processes.rank) * size)
        is_last = number == len(rounds) - 1
        with _without_exchange(runner, exchange=is_last), _arithmetic(config, processes.device):
            loss, overlap, _ = runner(placed, numbers)
        if not torch.isfinite(loss):
            place = harness.checkpoints.save_batch(batch, state.step, processes.rank)
            raise TrainingError(
                f"the loss is {loss.item()} at step {state.step + 1}; its batch is in {place}; lower "
                "optimiser.learning_rate, or set run.precision=float32, and go on from the checkpoint before"
            )
        with _without_exchange(runner, exchange=is_last):
            state.scaler.scale(loss / len(rounds)).backward()
        losses.append(loss.item())
        overlaps.append(overlap.item())
    return float(np.mean(losses)), float(np.mean(overlaps))


def _update(state: TrainState, config: TrainConfig) -> None:
    """Clip the gradient and take the step."""
    state.scaler.unscale_(state.optimiser)
    limit = config.optimiser.max_gradient_norm
    parts = state.network.children() if config.optimiser.clipping == "parts" else [state.network]
    for part in parts:
        torch.nn.utils.clip_grad_norm_(part.parameters(), limit)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1
    _update_average(state, config.optimiser.average_decay)


def _validate(state: TrainState, step: nn.Module, harness: Harness) -> None:
    """Look at the validation scans with the averaged weights; keep them when they are the best."""
    if harness.validator is None:
        return
    with state.averaged():
        loss = harness.validator.loss(step)
    state.network.train()
    harness.log.write({"step": state.step, "validation_dice_loss": loss})
    if loss < state.best_loss:
        state.best_loss = loss
        harness.checkpoints.save_best(state)


def _for_all_processes(step: nn.Module, processes: Processes) -> nn.Module:
    """Let the processes share their gradients; each mean over a batch becomes the mean over all."""
    if processes.count == 1:
        return step
    # Some methods have parameters that a step does not use, as published.
    return DistributedDataParallel(step, find_unused_parameters=True, broadcast_buffers=False)


@contextlib.contextmanager
def _without_exchange(runner: nn.Module, *, exchange: bool) -> Iterator[None]:
    """Keep gradients to this process in all rounds of a step but the last."""
    if exchange or not isinstance(runner, DistributedDataParallel):
        yield
    else:
        with runner.no_sync():
            yield


@contextlib.contextmanager
def _arithmetic(config: TrainConfig, device: torch.device) -> Iterator[None]:
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.bfloat16}
    enabled = config.run.precision != "float32"
    with torch.autocast(device.type, kinds[config.run.precision], enabled=enabled):
        yield


def _in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield as many batches as an optimiser step takes."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []


def _figures(
    step: int,
    losses: list[float],
    overlaps: list[float],
    rate: float,
    seconds: float,
    processes: Processes,
) -> dict[str, float]:
    loss, overlap = processes.mean([float(np.mean(losses)), float(np.mean(overlaps))])
    return {
        "step": step,
        "loss": loss,
        "dice": overlap,
        "learning_rate": rate,
        "seconds_per_step": seconds,
    }


@torch.no_grad()
def _update_average(state: TrainState, decay: float) -> None:
    # A young average forgets faster, so that it does not remember the random start.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    current = dict(state.network.named_parameters())
    for name in state.average:
        state.average[name].lerp_(current[name], 1 - decay)

"""The training loop, readable from top to bottom."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import TrainingError
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.config import TrainConfig
from clickvol.training.processes import Processes
from clickvol.training.run_log import RunLog
from clickvol.training.schedule import Schedule, learning_rate
from clickvol.training.state import TrainState
from clickvol.training.step_graphs import Descend, StepGraphs
from clickvol.training.tasks.task import Batch, Step, Task

_LOG_EVERY = 20

# Samples per validation scan. The released code takes one, a new one every time.
_SAMPLES_PER_CASE = 2

# Of a run whose minutes are limited.
_SECONDS_BETWEEN_CHECKPOINTS = 60.0

# What errors advise where numbers run away.
_CALMER = "a lower optimiser.learning_rate, or with --set run.precision=float32"
_GO_ON = f"go on from the checkpoint before with the same command and {_CALMER}"


class Validator:
    """Fixed samples of the validation scans.

    The measure is the released code's: the mean soft Dice loss of the object, for TAGS with its alignment loss,
    with 10 clicks inside; which is also what "best" means there. There one patch per scan is drawn anew every
    time, so that the best is partly luck; here there are two, and they are fixed.

    Args:
        cases: validation scans.
        task: what is trained.
        device: where the network is.
    """

    def __init__(self, cases: Sequence[LabelledVolume], task: Task[Any], device: torch.device) -> None:
        self._batches = list(task.plain_batches(cases, _SAMPLES_PER_CASE, device))
        self._device = device

    @torch.no_grad()
    def loss(self, step: Step) -> float:
        """Return the mean over the samples of what weights are chosen by, with the network as it is."""
        step.eval()
        losses = [step(batch.to(self._device), 0)[2] for batch in self._batches]
        return float(torch.stack(losses).double().mean())


@dataclass(frozen=True, slots=True, eq=False)
class Harness:
    """What stands around the loop.

    Attributes:
        processes: this process among those of the run.
        schedule: length and learning rate.
        last_step: at which this call stops.
        checkpoints: where the state is kept.
        log: where the figures go.
        validator: evaluates the validation scans now and then; None for never.
        report: called by the first process after every step with its number, and with the figures where they
            were read.
        remake: returns the batches of this process for a step once more.
        saved: called after every checkpoint.
    """

    processes: Processes
    schedule: Schedule
    last_step: int
    checkpoints: Checkpoints
    log: RunLog
    validator: Validator | None
    report: Callable[[dict[str, float]], None]
    remake: Callable[[int], list[Batch]]
    saved: Callable[[TrainState], None] = lambda _: None


def fit(
    state: TrainState,
    step: Step,
    batches: Iterable[Batch],
    config: TrainConfig,
    harness: Harness,
) -> None:
    """Train until the batches or the minutes end; checkpoints on the way and at the end.

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
    step.train()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = config.run.precision != "float32"
    descend = make_descend(state, step, config, harness.processes)
    figures = RunningFigures(harness.processes, step.figures)
    first_step = state.step + 1
    started, next_save = time.monotonic() - state.seconds, state.seconds + _SECONDS_BETWEEN_CHECKPOINTS
    for rounds in zip(*[iter(batches)] * config.optimiser.accumulate, strict=False):
        rate = learning_rate(state.step, config.optimiser, harness.schedule, state.seconds)
        state.set_rate(rate)
        num_samples = sum(len(batch.label) for batch in rounds)
        figures.add(*descend(rounds, state.step), num_samples, state.step)
        state.step += 1
        _update_average(state, config.optimiser.average_decay)
        state.samples += num_samples * harness.processes.count
        state.seconds = time.monotonic() - started
        is_over = state.seconds >= harness.schedule.num_seconds
        is_last = is_over or state.step == harness.last_step
        is_due = config.run.minutes is not None and state.seconds >= next_save
        saves = state.step % config.run.checkpoint_every == 0 or is_due or is_last
        is_logged = state.step % _LOG_EVERY == 0 or is_last
        told: dict[str, float] = {"step": state.step}
        if saves or is_logged or state.step == first_step:
            told |= _read(figures, state, harness, first_step) | {"learning_rate": rate}
        if is_logged:
            harness.log.write(told)
            figures.clear()
        harness.report(told)
        if harness.validator is not None and state.step % config.run.validate_every == 0:
            _validate(state, step, harness.validator, harness)
        if saves:
            _refuse_broken_weights(state)
            harness.checkpoints.save(state)
            harness.saved(state)
            next_save = state.seconds + _SECONDS_BETWEEN_CHECKPOINTS
        if is_over:
            break


class RunningFigures:
    """Sums of a process's losses and figures that stay on the device until they are read.

    Args:
        processes: whose mean is told.
        names: of the figures.
    """

    def __init__(self, processes: Processes, names: tuple[str, ...]) -> None:
        self._processes, self._names = processes, ("loss", *names)
        self._never = torch.tensor(-1, device=processes.device)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._sums = torch.zeros(len(self._names), device=self._processes.device)
        self._bad_step = self._never
        self._count = self._num_samples = 0
        self._started_at = time.perf_counter()

    def add(self, loss: Tensor, figures: Tensor, num_samples: int, step: int) -> None:
        """Add those of a step, without waiting for them."""
        is_first_bad = ~torch.isfinite(loss) & (self._bad_step < 0)
        self._bad_step = torch.where(is_first_bad, step, self._bad_step)
        self._sums += torch.cat([loss[None], figures.reshape(-1)])
        self._count += 1
        self._num_samples += num_samples * self._processes.count

    def read(self) -> tuple[dict[str, float], int | None]:
        """Return the means over steps and processes, and the first step of this process without a number.

        Every process must ask; this waits for the device.
        """
        *means, bad_step = torch.cat([self._sums / self._count, self._bad_step[None]]).tolist()
        # A process whose own loss is a number stops with the others.
        means = self._processes.mean(means)
        seconds = time.perf_counter() - self._started_at
        figures = dict(zip(self._names, means, strict=True)) | {
            "seconds_per_step": seconds / self._count,
            "samples_per_second": self._num_samples / seconds,
        }
        return figures, None if bad_step < 0 else int(bad_step)


def _read(figures: RunningFigures, state: TrainState, harness: Harness, first_step: int) -> dict[str, float]:
    """Return the figures so far; TrainingError when a loss was no number."""
    told, bad_step = figures.read()
    if math.isfinite(told["loss"]):
        return told
    place = "the folder of the run, by another process"
    if bad_step is not None:
        rank = harness.processes.rank
        place = str(harness.checkpoints.save_batches(harness.remake(bad_step), bad_step, rank))
    at_step = state.step if bad_step is None else bad_step + 1
    advice = _GO_ON
    if at_step == first_step > 1:
        advice = f"the checkpoint may be past saving: where it comes again, begin with --fresh and {_CALMER}"
    raise TrainingError(f"the loss is {told['loss']} at step {at_step}; its batch is in {place}; {advice}")


def _refuse_broken_weights(state: TrainState) -> None:
    """Keep weights that are no numbers out of the checkpoint, though no loss has told of them yet.

    Raises:
        TrainingError: when there are some.
    """
    norms = torch._foreach_norm([p.detach() for p in state.network.parameters()])
    if not torch.stack([norm.float() for norm in norms]).isfinite().all():
        raise TrainingError(f"weights are no numbers after step {state.step}; {_GO_ON}")


def make_descend(state: TrainState, step: Step, config: TrainConfig, processes: Processes) -> Descend:
    """Return what takes a step: on one GPU launched as a graph, where that works."""
    runner = _for_all_processes(step, processes, config.optimiser.accumulate)
    plain = partial(_descend, state, runner, config, processes.device)
    # A scaled loss is read by the host, and so is what processes exchange.
    is_alone = processes.count == 1 and not state.scaler.is_enabled()
    if processes.device.type != "cuda" or not is_alone or not config.run.cuda_graphs:
        return plain
    return StepGraphs(plain, step, state.optimiser)


def _descend(
    state: TrainState,
    runner: nn.Module,
    config: TrainConfig,
    device: torch.device,
    rounds: Sequence[Batch],
    number: int,
) -> tuple[Tensor, Tensor]:
    """Change the weights by a step: gradient, clipping, AdamW; return loss and figures of this process."""
    state.optimiser.zero_grad()
    losses, figures = [], []
    for place, batch in enumerate(rounds):
        with _exchange(runner, is_last=place == len(rounds) - 1):
            with _arithmetic(config, device):
                loss, told, _ = runner(batch.to(device), number)
            state.scaler.scale(loss / len(rounds)).backward()
        losses.append(loss.detach())
        figures.append(told)
    state.scaler.unscale_(state.optimiser)
    limit = config.optimiser.max_gradient_norm
    parts = state.network.children() if config.optimiser.clipping == "parts" else [state.network]
    for part in parts:
        torch.nn.utils.clip_grad_norm_(part.parameters(), limit)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    return torch.stack(losses).mean(), torch.stack(figures).mean(0)


def _validate(state: TrainState, step: Step, validator: Validator, harness: Harness) -> None:
    """Look at the validation scans with the averaged weights; keep them when they are the best."""
    with state.averaged():
        loss = validator.loss(step)
    step.train()
    harness.log.write({"step": state.step, "validation_loss": loss})
    if loss < state.best_loss:
        state.best_loss = loss
        harness.checkpoints.save_best(state)


def _for_all_processes(step: Step, processes: Processes, num_rounds: int) -> nn.Module:
    """Let the processes share their gradients; each mean over a batch becomes the mean over all."""
    if processes.count == 1:
        return step
    # Some methods have parameters that no step uses, as published: which ones never changes. Rounds without
    # exchange do not go with a static graph.
    is_static = num_rounds == 1
    return DistributedDataParallel(
        step, static_graph=is_static, find_unused_parameters=not is_static, broadcast_buffers=False
    )


def _exchange(runner: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Keep gradients to this process in all rounds of a step but the last."""
    if is_last or not isinstance(runner, DistributedDataParallel):
        return nullcontext()
    return runner.no_sync()


def _arithmetic(config: TrainConfig, device: torch.device) -> torch.autocast:
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.bfloat16}
    enabled = config.run.precision != "float32"
    # A cast that is kept would outlive the graph that made it.
    cache = device.type != "cuda"
    return torch.autocast(device.type, kinds[config.run.precision], enabled=enabled, cache_enabled=cache)


@torch.no_grad()
def _update_average(state: TrainState, decay: float) -> None:
    # A young average forgets faster, so that it does not remember the random start.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    parameters = dict(state.network.named_parameters())
    average = list(state.average.values())
    torch._foreach_lerp_(average, [parameters[name] for name in state.average], 1 - decay)

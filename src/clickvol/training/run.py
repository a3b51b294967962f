"""A training run from its configuration file to a model with a card."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.loader import batch_numbers, batches, make_phantoms
from clickvol.errors import ConfigError, TrainingError
from clickvol.files.atomic import remove_abandoned, write_text
from clickvol.files.lock import only_process_in
from clickvol.methods.freezing import num_parameters
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.config import OptimiserSection, TrainConfig
from clickvol.training.loop import Harness, Validator, fit
from clickvol.training.memory import freed_memory_kept
from clickvol.training.model_file import fixed_intensity, write_model
from clickvol.training.processes import Processes, join_processes
from clickvol.training.provenance import write_provenance
from clickvol.training.read_config import read_train_config
from clickvol.training.run_log import RunLog
from clickvol.training.schedule import Schedule
from clickvol.training.start import (
    fresh_state,
    hash_of_data,
    task_of,
    training_cases,
    validation_cases,
)
from clickvol.training.state import TrainState
from clickvol.training.tasks.task import Batch

Report = Callable[[dict[str, float]], None]

HISTORY_NAME = "history.jsonl"
"""One line per start of a run: from which step, by which command, and what was changed since the last one."""


def train_from_config(
    config_path: Path,
    overrides: list[str],
    *,
    fresh: bool = False,
    max_steps: int | None = None,
    report: Report = lambda _: None,
    saved: Callable[[TrainState], None] = lambda _: None,
) -> Path:
    """Train as a configuration file says; goes on from the last checkpoint where there is one.

    Under `torchrun` or `accelerate launch` every process calls this; the first one writes.

    Args:
        config_path: TOML, see `TrainConfig`.
        overrides: "section.field=value".
        fresh: begin again although there is a checkpoint.
        max_steps: stop (with a checkpoint) when this many steps of the schedule are done.
        report: called after every step with "step" and "num_steps", the length of the run, and after the first
            one and every 20 with the figures.
        saved: called by every process after each checkpoint.

    Returns:
        The card of the model, in the run's folder.

    Raises:
        ConfigError: for a configuration that cannot be used, or a folder that another run works in.
        TrainingError: when the loss is no number, or memory runs out.
        OutputError: when nothing can be written.
    """
    config = read_train_config(config_path, overrides)
    settings = [f" --set {shlex.quote(override)}" for override in overrides]
    command = f"clickvol train {config_path}" + "".join(settings)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    with join_processes(config.run.device) as processes, contextlib.ExitStack() as held:
        if config.run.minutes is not None and processes.count > 1:
            raise ConfigError("run.minutes goes by the clock of one process; leave it out, or start one")
        if processes.is_first:
            held.enter_context(only_process_in(config.run.folder))
            remove_abandoned(config.run.folder)
        processes.wait()
        with _memory_explained(), freed_memory_kept(processes.device):
            return _train(
                config, command, processes, fresh=fresh, max_steps=max_steps, report=report, saved=saved
            )


def _train(
    config: TrainConfig,
    command: str,
    processes: Processes,
    *,
    fresh: bool,
    max_steps: int | None,
    report: Report,
    saved: Callable[[TrainState], None],
) -> Path:
    torch.manual_seed(config.run.seed)
    task = task_of(config)
    state = fresh_state(config, task, processes.device)
    checkpoints = Checkpoints(config.run.folder, run_fingerprint(config), writes=processes.is_first)
    changes = checkpoints.restore(state) if checkpoints.last.is_file() and not fresh else {}
    cases = training_cases(config, task.organs)
    intensity = fixed_intensity(config, cases)
    with_organ = task.organs not in (None, "none")
    phantoms = make_phantoms(config.data.phantoms, config.run.seed, with_organ=with_organ)
    per_step = config.optimiser.batch_size * config.optimiser.accumulate * processes.count
    schedule = Schedule.of(config.optimiser, task.num_items([*cases, *phantoms]), per_step, config.run.minutes)
    sampler = task.sampler(cases, phantoms, processes.device)
    last_step = min(schedule.num_steps, max_steps or schedule.num_steps)
    if state.seconds >= schedule.num_seconds:
        last_step = state.step
    numbers = _numbers(state, last_step, config, processes)
    if processes.is_first:
        _describe(config, command, processes, changes, state.step)
    step = task.make_step(state.network).to(processes.device)
    rounds, first_step = config.optimiser.accumulate, state.step

    def remake(number: int) -> list[Batch]:
        return [sampler.batch(n) for n in numbers[(number - first_step) * rounds :][:rounds]]

    def report_length(figures: dict[str, float]) -> None:
        if processes.is_first:
            report(figures | {"num_steps": min(last_step, state.step * schedule.num_seconds / state.seconds)})

    judged = validation_cases(config, task.organs) if config.run.validate_every else None
    validator = None if judged is None else Validator(judged, task, processes.device)
    with RunLog(config.run.folder if processes.is_first else None, state.step) as log:
        harness = Harness(
            processes=processes,
            schedule=schedule,
            last_step=last_step,
            checkpoints=checkpoints,
            log=log,
            validator=validator,
            report=report_length,
            remake=remake,
            saved=saved,
        )
        made_on = processes.device if isinstance(sampler, PatchSampler) else torch.device("cpu")
        fit(state, step, batches(sampler, numbers, made_on, config.run.workers), config, harness)
    card = config.run.folder / f"{config.model.id}.json"
    if processes.is_first:
        kept = checkpoints.read_best() if config.run.keep == "best" else state.weights_to_keep()
        card = write_model(kept, num_parameters(state.network)[0], config, task, command, intensity)
    processes.wait()
    return card


def _numbers(state: TrainState, last_step: int, config: TrainConfig, processes: Processes) -> list[range]:
    """Return the numbers of the samples of each forward pass of this process up to a step."""
    return batch_numbers(
        state.samples,
        max(0, last_step - state.step) * config.optimiser.accumulate,
        config.optimiser.batch_size,
        rank=processes.rank,
        count=processes.count,
    )


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    """Say what to lower when memory runs out."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        has_class = isinstance(error, MemoryError | torch.OutOfMemoryError)
        # The CPU's allocator has no error class of its own.
        if not has_class and "can't allocate memory" not in str(error):
            raise
        raise TrainingError(
            "memory ran out; run the same command with a lower optimiser.batch_size (and optimiser.accumulate "
            "raised by as much) or with run.recompute_blocks=true, and it goes on from the last checkpoint; or "
            "begin again with a smaller model.size and --fresh"
        ) from error


def run_fingerprint(config: TrainConfig) -> str:
    """Return what makes a run this run: what it is called and where it is kept may change."""
    how = {"folder", "checkpoint_every", "threads", "workers", "device", "keep", "cuda_graphs", "compiled"}
    aside: dict[str, Any] = {"model": {"id", "title", "notes"}, "run": how}
    # A field that a later version adds, and that is not used, does not make it another run.
    if config.optimiser.betas == OptimiserSection.model_fields["betas"].default:
        aside["optimiser"] = {"betas"}
    if getattr(config.sampling, "fitted_around", "click") == "click":
        aside["sampling"] = {"fitted_around"}
    plain = [n for n, folder in enumerate(config.data.folders) if folder.objects == "tumour"]
    aside["data"] = {"folders": {n: {"objects"} for n in plain}}
    return config.model_dump_json(exclude=aside, exclude_none=True)


def _describe(
    config: TrainConfig, command: str, processes: Processes, changes: dict[str, list[Any]], step: int
) -> None:
    """Write beside the run what it is made with, and what was changed on the way."""
    folder = config.run.folder
    write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")
    write_provenance(folder, command, hash_of_data(config), processes.count)
    line = {"from_step": step, "command": command, "changes": changes, "processes": processes.count}
    line |= {"threads": torch.get_num_threads(), "device": str(processes.device)}
    with (folder / HISTORY_NAME).open("a" if step else "w", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")

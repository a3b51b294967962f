"""The arms of a study: trained, or trained before; what `clickvol evaluate` would be told to call them."""

import json
import pickle
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from clickvol.bridges.nnunet_environment import check_environment
from clickvol.bridges.nnunet_run import (
    NnunetRun,
    NnunetSettings,
    choose_nnunet_device,
    run_nnunet,
)
from clickvol.datasets.prepared import is_prepared_set, read_prepared_set
from clickvol.errors import ConfigError
from clickvol.reproduction.data_steps import is_prepared
from clickvol.reproduction.study import TASK_FIELD, Arm, ContestantArm, NnunetArm, Task, TrainArm
from clickvol.reproduction.workspace import Reproduction
from clickvol.training.config import FolderSection, TrainConfig
from clickvol.training.read_config import read_train_config
from clickvol.training.run import run_fingerprint, train_from_config
from clickvol.training.schedule import Schedule

OnMessage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """A training as `clickvol train` is told it.

    Attributes:
        path: of the training file.
        overrides: "section.field=value".
        config: what both say together.
        stop_at: last step; None for the whole schedule.
    """

    path: Path
    overrides: tuple[str, ...]
    config: TrainConfig
    stop_at: int | None

    @property
    def command(self) -> str:
        """The command that does the same."""
        words = ["clickvol", "train", str(self.path)]
        for override in self.overrides:
            words += ["--set", override]
        if self.stop_at is not None:
            words += ["--steps", str(self.stop_at)]
        return shlex.join(words)

    @property
    def card(self) -> Path:
        """The card of the model that comes out."""
        return self.config.run.folder / f"{self.config.model.id}.json"


def training_order(job: Reproduction, arm: TrainArm, task: Task) -> TrainingOrder:
    """Return the training of an arm: its file, its overrides, the study's data and the folder of the run.

    A run that is finished where the file itself says counts, so that a model which `clickvol train` made is
    not made again.

    Raises:
        ConfigError: when the file cannot be used.
    """
    path = job.file.next_to(arm.config.replace(TASK_FIELD, task.name))
    overrides = [*arm.overrides]
    if job.device != "auto":
        overrides.append(f"run.device={json.dumps(job.device)}")
    if job.steps is not None:
        overrides.append('run.keep="last"')  # it may end before the first validation
    config = read_train_config(path, overrides)
    if not _has_the_same_data(job, config, task):
        overrides.append(f"data.root={json.dumps(str(job.folder / 'data'))}")
        overrides.append(f"data.folders={_folders(task)}")
    there = TrainingOrder(path, tuple(overrides), read_train_config(path, overrides), job.steps)
    if job.steps is None and is_finished(there):
        return there
    overrides.append(f"run.folder={json.dumps(str(job.run_folder(arm, task)))}")
    return TrainingOrder(path, tuple(overrides), read_train_config(path, overrides), job.steps)


def is_finished(order: TrainingOrder) -> bool:
    """Tell whether a training has been done to its end, with this very configuration."""
    reached = _reached(order.config.run.folder)
    if reached is None or not order.card.with_suffix(".safetensors").is_file():
        return False
    fingerprint, step = reached
    if not order.card.is_file() or fingerprint != run_fingerprint(order.config):
        return False
    return step >= _last_step(order)


def train_arm(job: Reproduction, arm: TrainArm, task: Task, on_message: OnMessage) -> None:
    """Train an arm; goes on from its last checkpoint.

    Raises:
        ConfigError: when the folder holds another run, or the configuration cannot be used.
        ClickvolError: as `train_from_config`.
    """
    order = training_order(job, arm, task)
    reached = _reached(order.config.run.folder)
    if reached is not None and reached[0] != run_fingerprint(order.config):
        raise ConfigError(
            f"{order.config.run.folder} holds a training with another configuration or data; move it away, or "
            "give another output folder"
        )

    def on_figures(figures: dict[str, float]) -> None:
        on_message(
            f"{order.config.run.folder.name}: step {figures['step']:.0f} of {figures['num_steps']:.0f}, loss "
            f"{figures['loss']:.3f}, {figures['seconds_per_step']:.2f} s per step"
        )

    with _threads_kept():
        train_from_config(order.path, list(order.overrides), max_steps=order.stop_at, report=on_figures)


def nnunet_settings(job: Reproduction, arm: NnunetArm) -> NnunetSettings:
    """Return what makes nnU-Net's result; a rehearsal is one epoch of so many steps."""
    return NnunetSettings(
        configuration=arm.configuration,
        epochs=arm.epochs if job.steps is None else 1,
        iterations_per_epoch=arm.iterations_per_epoch if job.steps is None else job.steps,
        memory_gb=arm.memory_gb,
        mirroring=arm.mirroring,
    )


def nnunet_command(job: Reproduction, arm: NnunetArm, task: Task) -> str:
    """Return the command that does the same."""
    settings = nnunet_settings(job, arm)
    words = ["clickvol", "nnunet", "run", "--data", str(job.prepared(task.data[0]))]
    words += ["--venv", str(job.venv or "nnunet-venv"), "-o", str(job.run_folder(arm, task))]
    words += ["--configuration", settings.configuration, "--epochs", str(settings.epochs)]
    words += ["--iterations-per-epoch", str(settings.iterations_per_epoch)]
    if settings.memory_gb is not None:
        words += ["--memory-gb", f"{settings.memory_gb:g}"]
    return shlex.join([*words, *(() if settings.mirroring else ("--no-mirroring",))])


def nnunet_is_finished(job: Reproduction, arm: NnunetArm, task: Task) -> bool:
    """Tell whether nnU-Net's masks of all scans that are scored are there."""
    (data,) = task.data
    folder = job.run_folder(arm, task) / "predictions"
    if not folder.is_dir() or not is_prepared(job, data):
        return False
    cases = read_prepared_set(job.prepared(data)).part("test")
    return all((folder / f"{case.case_id}.nii.gz").is_file() for case in cases)


def run_nnunet_arm(job: Reproduction, arm: NnunetArm, task: Task, on_message: OnMessage) -> None:
    """Train nnU-Net and predict; goes on where it was.

    Raises:
        ConfigError: without an environment, or when the folder holds another run.
        ClickvolError: as `run_nnunet`.
    """
    if job.venv is None:
        raise ConfigError(
            f"{arm.name} needs nnU-Net's environment; give --venv (clickvol nnunet setup makes it)"
        )
    environment = check_environment(job.venv)
    device = None if job.device == "auto" else job.device.partition(":")[0]
    run = NnunetRun(
        folder=job.run_folder(arm, task),
        environment=environment,
        settings=nnunet_settings(job, arm),
        device=choose_nnunet_device(device, environment),
        workers=job.workers,
        on_stage=lambda stage: on_message(f"{arm.name}: {stage}"),
    )
    run_nnunet(read_prepared_set(job.prepared(task.data[0])), run)


def contestant_word(job: Reproduction, arm: Arm, task: Task) -> str | None:
    """Return what `clickvol evaluate` is told of an arm; None for one that is not trained yet."""
    if isinstance(arm, ContestantArm):
        return f"{arm.name}={arm.word}"
    if isinstance(arm, NnunetArm):
        if not nnunet_is_finished(job, arm, task):
            return None
        return f"{arm.name}=predictions:{job.run_folder(arm, task) / 'predictions'}"
    order = training_order(job, arm, task)
    return f"{arm.name}={order.card}" if is_finished(order) else None


def _folders(task: Task) -> str:
    """Return the data of a task as a TOML value."""
    tables = [
        f"{{path={json.dumps(data.name)}, modality={json.dumps(data.modality)}, "
        f"source={json.dumps(data.source)}}}"
        for data in task.data
    ]
    return f"[{', '.join(tables)}]"


def _has_the_same_data(job: Reproduction, config: TrainConfig, task: Task) -> bool:
    """Tell whether a training file names prepared sets with the content that the study's have."""
    own = [config.data.root / folder.path for folder in config.data.folders]
    ours = [job.prepared(data) for data in task.data]
    if len(own) != len(ours) or not all(map(is_prepared_set, [*own, *ours])):
        return False
    return all(
        read_prepared_set(a).content_hash == read_prepared_set(b).content_hash
        for a, b in zip(own, ours, strict=True)
    )


def _reached(folder: Path) -> tuple[str, int] | None:
    """Return fingerprint and step of a run's last checkpoint; None without a readable one."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return None
    try:
        # Mapped, not read: with optimiser it is gigabytes.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return str(content["fingerprint"]), int(content["step"])
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ):  # the training itself says what is wrong with it
        return None


def _last_step(order: TrainingOrder) -> int:
    """Return the step that a training ends with."""
    config = order.config
    optimiser = config.optimiser
    num_cases = config.data.phantoms + sum(_num_cases(config, folder) for folder in config.data.folders)
    per_step = optimiser.batch_size * optimiser.accumulate * _num_processes(config.run.folder)
    num_steps = Schedule.of(optimiser, num_cases, per_step).num_steps
    return num_steps if order.stop_at is None else min(num_steps, order.stop_at)


def _num_cases(config: TrainConfig, folder: FolderSection) -> int:
    """Return how many scans of a prepared set are trained on."""
    excluded = config.data.validation_patients
    return sum(
        not case.belongs_to(excluded)
        for case in read_prepared_set(config.data.root / folder.path).part("train", config.data.fold)
    )


def _num_processes(folder: Path) -> int:
    """Return how many processes a run was made by, so that one of `torchrun` is known to be whole."""
    try:
        content = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        return int(content["machine"]["processes"])
    except (OSError, ValueError, LookupError, TypeError):
        return 1


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Give back the threads that a training takes, so that what follows is as fast as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)

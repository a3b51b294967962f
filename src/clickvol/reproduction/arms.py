"""The arms of a study that are trained before they are scored: by this package, or by nnU-Net."""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch

from clickvol.bridges.nnunet_environment import check_environment
from clickvol.bridges.nnunet_run import NnunetRun, NnunetSettings, choose_nnunet_device, run_nnunet
from clickvol.datasets.prepared import file_state, is_prepared_set, read_prepared_set
from clickvol.errors import ConfigError, DamagedWeightsError, ModelNotFoundError
from clickvol.report.page import command_line
from clickvol.reproduction.preparation import is_prepared
from clickvol.reproduction.study import TASK_FIELD, Arm, MethodArm, NnunetArm, Task, TrainArm
from clickvol.reproduction.workspace import Reproduction
from clickvol.training.config import FolderSection, TrainConfig
from clickvol.training.read_config import read_train_config
from clickvol.training.run import run_fingerprint, train_from_config
from clickvol.training.schedule import Schedule
from clickvol.weights.card import find_card, read_card
from clickvol.weights.safe_file import read_weights

OnMessage = Callable[[str], None]


def training_of(job: Reproduction, arm: Arm, task: Task) -> "OwnTraining | NnunetTraining | None":
    """Return the training of an arm; None for one that needs none."""
    if isinstance(arm, TrainArm):
        return OwnTraining(job, arm, task)
    return NnunetTraining(job, arm, task) if isinstance(arm, NnunetArm) else None


def named_method(job: Reproduction, arm: Arm, task: Task) -> str | None:
    """Return an arm as `clickvol evaluate` takes it, NAME=METHOD; None for one that is not trained yet."""
    if isinstance(arm, MethodArm):
        other = next((one for one in job.study.arms if one.name == arm.of_arm), None)
        if other is None:
            return f"{arm.name}={arm.method}"
        trained = training_of(job, other, task)
        if trained is None or not trained.is_done():
            return None
        return f"{arm.name}={arm.method.replace('{' + other.name + '}', trained.method())}"
    training = training_of(job, arm, task)
    return f"{arm.name}={training.method()}" if training and training.is_done() else None


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """The arguments of `clickvol train`: file, overrides ("section.field=value"), and what both say."""

    path: Path
    overrides: tuple[str, ...]
    config: TrainConfig

    @property
    def card(self) -> Path:
        """The card of the model that comes out."""
        return self.config.run.folder / f"{self.config.model.id}.json"

    def is_finished(self, stop_at: int | None) -> bool:
        """Tell whether it has been done with this very configuration, to its end or to an earlier last step."""
        reached = _reached(self.config.run.folder)
        if reached is None or not self.card.is_file() or not self.card.with_suffix(".safetensors").is_file():
            return False
        fingerprint, step = reached
        if fingerprint != run_fingerprint(self.config):
            return False
        num_steps = _num_steps(self.config)
        return step >= (num_steps if stop_at is None else min(num_steps, stop_at))


@dataclass(frozen=True, slots=True)
class OwnTraining:
    """A training by this package: its file, its overrides, the study's data and the folder of the run.

    A run that is finished where the file itself says counts, so that a model which `clickvol train` made is
    not made again.
    """

    job: Reproduction
    arm: TrainArm
    task: Task

    def arguments(self) -> TrainArguments:
        """Return the arguments of `clickvol train`; ConfigError when the file cannot be used."""
        job = self.job
        config = self.arm.text_config if job.form == "text" else ""
        path = job.file.next_to((config or self.arm.config).replace(TASK_FIELD, self.task.name))
        overrides = [*self.arm.overrides]

        def so_far() -> TrainArguments:
            return TrainArguments(path, tuple(overrides), read_train_config(path, overrides))

        if len(job.study.folds) > 1:
            overrides.append(f"data.fold={job.fold}")
        if job.seed is not None:
            overrides.append(f"run.seed={job.seed + 1000 * job.fold}")  # no two begin with the same weights
        if job.device != "auto":
            overrides.append(f"run.device={json.dumps(job.device)}")
        if job.steps is not None:
            overrides.append('run.keep="last"')  # it may end before the first validation
        if not self._has_the_same_data(so_far().config):
            overrides.append(f"data.root={json.dumps(str(job.folder / 'data'))}")
            overrides.append(f"data.folders={_folders(self.task)}")
        there = so_far()
        if job.steps is None and there.is_finished(None):
            return there
        overrides.append(f"run.folder={json.dumps(str(job.run_folder(self.arm, self.task)))}")
        return so_far()

    def command(self) -> str:
        """Return the command that does the same; ConfigError for a training file that cannot be used."""
        arguments = self.arguments()
        return command_line(
            "train", str(arguments.path), {"--set": arguments.overrides, "--steps": self.job.steps}
        )

    def is_done(self) -> bool:
        """Tell whether it is complete. How long that is may depend on the number of prepared scans."""
        if not all(is_prepared(self.job, data) for data in self.task.data):
            return False
        return self.arguments().is_finished(self.job.steps)

    def work(self, on_message: OnMessage) -> None:
        """Do it, or go on from the last checkpoint, but never from that of another configuration."""
        arguments = self.arguments()
        folder = arguments.config.run.folder
        reached = _reached(folder)
        if reached is not None and reached[0] != run_fingerprint(arguments.config):
            raise ConfigError(
                f"{folder} holds a training with another configuration or data; move it away, or give another "
                "output folder"
            )

        def on_figures(figures: dict[str, float]) -> None:
            if "loss" not in figures:
                return
            on_message(
                f"{folder.name}: step {figures['step']:.0f} of {figures['num_steps']:.0f}, loss "
                f"{figures['loss']:.3f}, {figures['seconds_per_step']:.2f} s per step"
            )

        with _threads_kept():
            train_from_config(
                arguments.path, list(arguments.overrides), max_steps=self.job.steps, report=on_figures
            )

    def method(self) -> str:
        """Return the model as `clickvol evaluate` takes it, without a name."""
        return str(self.arguments().card)

    def missing_model(self) -> str | None:
        """Return in one line which model the training begins with is not here, or damaged; None for none."""
        run = self.arguments().config.run
        for name in filter(None, (run.foundation, run.start_from)):
            try:
                path = find_card(name)
                fault = _weights_fault(path, file_state(path.with_suffix(".safetensors")))
            except ModelNotFoundError as error:
                fault = str(error)
            if fault is not None:
                return f"{self.arm.name} begins with {name}: {fault}"
        return None

    def _has_the_same_data(self, config: TrainConfig) -> bool:
        """Tell whether a training file names prepared sets with the content that the study's have."""
        own = [config.data.root / folder.path for folder in config.data.folders]
        ours = [self.job.prepared(data) for data in self.task.data]
        if len(own) != len(ours) or not all(map(is_prepared_set, [*own, *ours])):
            return False
        return all(
            read_prepared_set(a).content_hash == read_prepared_set(b).content_hash
            for a, b in zip(own, ours, strict=True)
        )


@lru_cache(maxsize=8)
def _weights_fault(card_path: Path, _state: tuple[int, int]) -> str | None:
    """Return in one line what is wrong with the weights beside a card; read once while the file stays."""
    try:
        card = read_card(card_path)
        read_weights(card_path.with_name(Path(card.weights_file).name), sha256=card.sha256)
    except (DamagedWeightsError, ModelNotFoundError) as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True)
class NnunetTraining:
    """A training of nnU-Net and its masks of all scans that are scored; a rehearsal is one short epoch."""

    job: Reproduction
    arm: NnunetArm
    task: Task

    @property
    def _settings(self) -> NnunetSettings:
        arm, steps = self.arm, self.job.steps
        asked = arm.model_dump(include={field.name for field in fields(NnunetSettings)})
        return NnunetSettings(**asked | ({} if steps is None else {"epochs": 1, "iterations_per_epoch": steps}))

    @property
    def _folder(self) -> Path:
        return self.job.run_folder(self.arm, self.task)

    def command(self) -> str:
        """See `OwnTraining`."""
        settings = self._settings
        options = {
            "--data": self.job.prepared(self.task.data[0]),
            "--venv": self.job.venv or "nnunet-venv",
            "-o": self._folder,
            "--configuration": settings.configuration,
            "--epochs": settings.epochs,
            "--iterations-per-epoch": settings.iterations_per_epoch,
            "--memory-gb": settings.memory_gb,
            "--no-mirroring": not settings.mirroring,
        }
        return command_line("nnunet", "run", options)

    def is_done(self) -> bool:
        """See `OwnTraining`."""
        (data,) = self.task.data
        folder = self._folder / "predictions"
        if not folder.is_dir() or not is_prepared(self.job, data):
            return False
        cases = read_prepared_set(self.job.prepared(data)).part("test")
        return all((folder / f"{case.case_id}.nii.gz").is_file() for case in cases)

    def work(self, on_message: OnMessage) -> None:
        """Do it, or go on with it; ConfigError without an environment."""
        job, name = self.job, self.arm.name
        if job.venv is None:
            raise ConfigError(
                f"{name} needs nnU-Net's environment; give --venv (clickvol nnunet setup makes it)"
            )
        environment = check_environment(job.venv)
        device = None if job.device == "auto" else job.device.partition(":")[0]
        run = NnunetRun(
            folder=self._folder,
            environment=environment,
            settings=self._settings,
            device=choose_nnunet_device(device, environment),
            workers=job.workers,
            on_stage=lambda stage: on_message(f"{name}: {stage}"),
        )
        run_nnunet(read_prepared_set(job.prepared(self.task.data[0])), run)

    def method(self) -> str:
        """See `OwnTraining`."""
        return f"predictions:{self._folder / 'predictions'}"


def _folders(task: Task) -> str:
    tables = [
        f"{{path={json.dumps(data.name)}, modality={json.dumps(data.modality)}, "
        f"source={json.dumps(data.source)}}}"
        for data in task.data
    ]
    return f"[{', '.join(tables)}]"


def _reached(folder: Path) -> tuple[str, int] | None:
    """Return fingerprint and step of a run's last checkpoint; None without a readable one."""
    path = folder / "checkpoint.pt"
    return _read_reached(path, file_state(path)) if path.is_file() else None


@lru_cache(maxsize=256)
def _read_reached(path: Path, _state: tuple[int, int]) -> tuple[str, int] | None:
    """Read it once while the file stays: a study asks after every step, and it takes a second."""
    try:
        # Mapped, not read: with optimiser it is gigabytes.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return str(content["fingerprint"]), int(content["step"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError):
        return None  # the training itself says what is wrong with it


def _num_steps(config: TrainConfig) -> int:
    optimiser = config.optimiser
    num_cases = config.data.phantoms + sum(_num_cases(config, folder) for folder in config.data.folders)
    per_step = optimiser.batch_size * optimiser.accumulate * _num_processes(config.run.folder)
    return Schedule.of(optimiser, num_cases, per_step).num_steps


def _num_cases(config: TrainConfig, folder: FolderSection) -> int:
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

"""A study step by step: prepare, train, score, compare; what is complete is not done again."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clickvol.datasets.prepared import file_state
from clickvol.errors import ClickvolError, ConfigError, OutputError
from clickvol.evaluation.methods import parse_methods
from clickvol.files.lock import only_process_in
from clickvol.reproduction.arms import NnunetTraining, OnMessage, OwnTraining, training_of
from clickvol.reproduction.claims import write_claims
from clickvol.reproduction.preparation import is_prepared, missing_source, preparation_command, prepare
from clickvol.reproduction.scoring import compare, evaluation_command, is_scored, score
from clickvol.reproduction.study import Arm, DataSet, MethodArm, NnunetArm, Task
from clickvol.reproduction.table import write_table
from clickvol.reproduction.workspace import Reproduction

# Checkpoints, which are written beside the one before, and the model: 2 x 0.9 and 0.25 GB at ViT-B.
_BYTES_PER_TRAINING = 2_000_000_000
_SMALL_SIZES = {"tiny": 0.01, "small": 0.1}  # in parts of that


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the work, the command that does the same, whether it is complete, and a hint for before.

    After one that is scoring, claims may stand otherwise.
    """

    title: str
    command: Callable[[], str]
    is_done: Callable[[], bool]
    work: Callable[[OnMessage], None]
    hint: str = ""
    is_scoring: bool = False


def steps_of(job: Reproduction) -> list[Step]:
    """Return the steps in their order. nnU-Net without an environment has none."""
    return [
        *(_preparation(job, data) for data in job.study.data),
        *(
            step
            for one, arm in job.repeated_arms
            for task in job.study.tasks
            for step in _steps_of_arm(one, arm, task)
        ),
    ]


def left_out(job: Reproduction) -> list[str]:
    """Return the commands of what cannot be done now, one line each: nnU-Net without its environment."""
    return [
        f"{arm.name} on {task.name} is not run without --venv: {NnunetTraining(job, arm, task).command()}"
        for arm in job.arms
        if isinstance(arm, NnunetArm)
        for task in job.study.tasks
        if _is_left_out(job, arm, task) and not is_scored(job, arm, task)
    ]


def reproduce(
    job: Reproduction,
    *,
    on_step: Callable[[Step, bool], None] = lambda _step, _is_done: None,
    on_message: OnMessage = lambda _: None,
) -> Path:
    """Do what is not done yet, and write the table, Markdown with its CSV beside it; return its path.

    `on_step` is called before every step, and told whether it is done already; `on_message` gets a line now and
    then. ConfigError when data or the model that a training begins with are missing, or a folder holds
    something else or is in use; where a step fails, the same command goes on from there.
    """
    steps = steps_of(job)
    _check_sources(job)
    with only_process_in(job.folder):
        for step in steps:
            is_done = step.is_done()
            on_step(step, is_done)
            if not is_done:
                step.work(on_message)
                if step.is_scoring:
                    write_claims(job)  # of what there is so far
        on_message("comparing all arms")
        return _write_all_tables(job)


def tables_from_records(job: Reproduction) -> Path:
    """Write the table, claims and reports again from `OUT/evaluations` alone; return the table's path.

    Neither data nor models need be there. ConfigError where nothing of the study was scored in that folder, or
    another process is in it.
    """
    job = replace(job, records_only=True)
    if not any(is_scored(one, arm, task) for one, arm in job.repeated_arms for task in job.study.tasks):
        raise ConfigError(
            f"{job.results / 'evaluations'} holds no finished evaluation of the study {job.study.name}; give "
            "-o the folder that clickvol reproduce wrote, with the same --budget, --as and --steps"
        )
    with only_process_in(job.folder):
        return _write_all_tables(job)


def _write_all_tables(job: Reproduction) -> Path:
    compared = {task.name: compare(job, task) for task in job.study.tasks}
    write_claims(job)
    summaries = {name: summary for name, summary in compared.items() if summary is not None}
    return write_table(job, summaries, left_out(job))


def missing_space(job: Reproduction) -> str | None:
    """Return in one line how much room is lacking on the disk; None where there is enough.

    A prepared set is taken for twice its source, of which half is a copy; what is there already counts.
    """
    there = [data for data in job.study.data if not is_prepared(job, data) and job.source(data).is_dir()]
    needed = sum(
        max(0, 2 * file_state(job.source(data))[0] - file_state(job.prepared(data))[0]) for data in there
    )
    trainings = [
        training_of(one, arm, task) for arm in job.arms for one in job.repeats(arm) for task in job.study.tasks
    ]
    open_ones = [one for one in trainings if isinstance(one, OwnTraining) and not one.is_done()]
    sizes = [_SMALL_SIZES.get(one.arguments().config.model.size, 1) for one in open_ones]
    needed += round(_BYTES_PER_TRAINING * sum(sizes))
    place = next(folder for folder in (job.folder, *job.folder.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed <= free:
        return None
    return (
        f"about {needed / 1e9:.1f} GB are to be written to {job.folder}, but its disk has {free / 1e9:.1f} GB "
        "free; make room, give -o a folder on another disk, or --only some arms"
    )


def _check_sources(job: Reproduction) -> None:
    """Find out before any work whether data, models or room on the disk are missing."""
    for data in job.study.data:
        missing = None if is_prepared(job, data) else missing_source(job, data)
        if missing is not None:
            raise ConfigError(missing)
    for arm in job.arms:
        for one, task in itertools.product(job.repeats(arm), job.study.tasks):
            training = training_of(one, arm, task)
            if isinstance(training, OwnTraining) and not training.is_done():
                missing = training.missing_model()
            else:
                missing = _unusable_method(one, arm, task)
            if missing is not None:
                raise ConfigError(missing)
    missing = missing_space(job)
    if missing is not None:
        raise OutputError(missing)


def _unusable_method(job: Reproduction, arm: Arm, task: Task) -> str | None:
    """Return in one line why an arm without training cannot be scored; None where it can."""
    if not isinstance(arm, MethodArm) or arm.of_arm is not None or is_scored(job, arm, task):
        return None
    try:
        parse_methods([arm.method], device="cpu")
    except ClickvolError as error:
        return f"{arm.name} is {arm.method}: {error}"
    return None


def _preparation(job: Reproduction, data: DataSet) -> Step:
    return Step(
        title=f"prepare {data.name}",
        command=partial(preparation_command, job, data),
        is_done=partial(is_prepared, job, data),
        work=partial(prepare, job, data),
        hint=missing_source(job, data) or "",
    )


def _steps_of_arm(job: Reproduction, arm: Arm, task: Task) -> list[Step]:
    if _is_left_out(job, arm, task):
        return []
    scoring = Step(
        title=f"score {arm.name}{job.which} on {task.name}",
        command=partial(evaluation_command, job, arm, task),
        is_done=partial(is_scored, job, arm, task),
        work=partial(score, job, arm, task),
        is_scoring=True,
    )
    training = training_of(job, arm, task)
    if training is None:
        return [replace(scoring, hint=_unusable_method(job, arm, task) or "")]
    hint = arm.needs
    if isinstance(training, OwnTraining):  # its mistakes show before any work
        hint = "\n    ".join(filter(None, (training.missing_model(), hint)))
    title = f"train {arm.name}{job.which} on {task.name}"
    return [Step(title, training.command, training.is_done, training.work, hint=hint), scoring]


def _is_left_out(job: Reproduction, arm: Arm, task: Task) -> bool:
    return isinstance(arm, NnunetArm) and job.venv is None and not NnunetTraining(job, arm, task).is_done()

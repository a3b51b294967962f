"""A study step by step: prepare, train, score, compare; what is complete is not done again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.files.lock import only_process_in
from clickvol.reproduction.arm_steps import (
    OnMessage,
    is_finished,
    nnunet_command,
    nnunet_is_finished,
    run_nnunet_arm,
    train_arm,
    training_order,
)
from clickvol.reproduction.data_steps import (
    is_prepared,
    missing_source,
    preparation_command,
    prepare,
)
from clickvol.reproduction.score_steps import compare, evaluation_command, is_scored, score
from clickvol.reproduction.study import Arm, ContestantArm, DataSet, NnunetArm, Task, TrainArm
from clickvol.reproduction.table import write_table
from clickvol.reproduction.workspace import Reproduction


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the work.

    Attributes:
        title: what is done.
        command: returns the command that does the same.
        is_done: tells whether its output is complete.
        work: does it, or goes on with it.
        hint: what a user should know before; "" for nothing.
    """

    title: str
    command: Callable[[], str]
    is_done: Callable[[], bool]
    work: Callable[[OnMessage], None]
    hint: str = ""


def steps_of(job: Reproduction) -> list[Step]:
    """Return the steps in their order. nnU-Net without an environment has none.

    Raises:
        ConfigError: for a training file that cannot be used.
    """
    return [
        *(_preparation(job, data) for data in job.study.data),
        *(
            step
            for arm in job.arms
            for task in job.study.tasks
            if not _is_left_out(job, arm, task)
            for step in (*_making(job, arm, task), _scoring(job, arm, task))
        ),
    ]


def left_out(job: Reproduction) -> list[str]:
    """Return the commands of what cannot be done now, one line each: nnU-Net without its environment."""
    return [
        f"{arm.name} on {task.name} is not run without --venv: {nnunet_command(job, arm, task)}"
        for arm in job.arms
        if isinstance(arm, NnunetArm)
        for task in job.study.tasks
        if _is_left_out(job, arm, task)
    ]


def reproduce(
    job: Reproduction,
    *,
    on_step: Callable[[Step, bool], None] = lambda _step, _is_done: None,
    on_message: OnMessage = lambda _: None,
) -> Path:
    """Do what is not done yet, and write the table.

    Args:
        job: what to do.
        on_step: called before every step, and told whether it is done already.
        on_message: gets a line now and then within a step.

    Returns:
        The table, Markdown; its CSV lies beside it.

    Raises:
        ConfigError: when data are missing, or a folder holds something else or is in use.
        ClickvolError: when a step fails; the same command goes on from there.
    """
    steps = steps_of(job)
    _check_sources(job)
    with only_process_in(job.folder):
        for step in steps:
            is_done = step.is_done()
            on_step(step, is_done)
            if not is_done:
                step.work(on_message)
        on_message("comparing all arms")
        summaries = {
            task.name: summary for task in job.study.tasks if (summary := compare(job, task)) is not None
        }
        return write_table(job, summaries, left_out(job))


def _check_sources(job: Reproduction) -> None:
    """Find out before any work whether a data set is missing."""
    for data in job.study.data:
        missing = None if is_prepared(job, data) else missing_source(job, data)
        if missing is not None:
            raise ConfigError(missing)


def _preparation(job: Reproduction, data: DataSet) -> Step:
    return Step(
        title=f"prepare {data.name}",
        command=partial(preparation_command, job, data),
        is_done=partial(is_prepared, job, data),
        work=partial(prepare, job, data),
        hint=missing_source(job, data) or "",
    )


def _making(job: Reproduction, arm: Arm, task: Task) -> Sequence[Step]:
    """Return the training of an arm; nothing for one that needs none."""
    title = f"train {arm.name} on {task.name}"
    if isinstance(arm, ContestantArm):
        return ()
    if isinstance(arm, NnunetArm):
        return (
            Step(
                title=title,
                command=partial(nnunet_command, job, arm, task),
                is_done=partial(nnunet_is_finished, job, arm, task),
                work=partial(run_nnunet_arm, job, arm, task),
                hint=arm.needs,
            ),
        )
    training_order(job, arm, task)  # its mistakes show before any work
    return (
        Step(
            title=title,
            command=lambda: training_order(job, arm, task).command,
            is_done=partial(_is_trained, job, arm, task),
            work=partial(train_arm, job, arm, task),
            hint=arm.needs,
        ),
    )


def _is_trained(job: Reproduction, arm: TrainArm, task: Task) -> bool:
    # How long the schedule is may depend on the number of scans.
    if not all(is_prepared(job, data) for data in task.data):
        return False
    return is_finished(training_order(job, arm, task))


def _scoring(job: Reproduction, arm: Arm, task: Task) -> Step:
    return Step(
        title=f"score {arm.name} on {task.name}",
        command=partial(evaluation_command, job, arm, task),
        is_done=partial(is_scored, job, arm, task),
        work=partial(score, job, arm, task),
    )


def _is_left_out(job: Reproduction, arm: Arm, task: Task) -> bool:
    return isinstance(arm, NnunetArm) and job.venv is None and not nnunet_is_finished(job, arm, task)

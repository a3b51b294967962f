"""The arms of a study scored, each by itself, and compared task by task."""

import itertools
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from clickvol.datasets.prepared import file_state, read_prepared_set
from clickvol.evaluation.cases import OrganMaskChoice
from clickvol.evaluation.methods import model_fingerprint, parse_methods
from clickvol.evaluation.records import TABLE_NAME, score_table, write_table
from clickvol.evaluation.result_log import SETTINGS_NAME
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.files.atomic import write_text
from clickvol.predict.segmentation import Procedure
from clickvol.report.page import command_of, write_report
from clickvol.report.summary import Summary
from clickvol.reproduction.arms import OnMessage, named_method
from clickvol.reproduction.preparation import is_prepared
from clickvol.reproduction.study import Arm, Task, TrainArm
from clickvol.reproduction.workspace import Reproduction
from clickvol.version import __version__
from clickvol.weights.card import read_card

_WARNINGS_NAME = "warnings.txt"


def evaluation_command(job: Reproduction, arm: Arm, task: Task) -> str:
    """Return the command that scores an arm."""
    method = named_method(job, arm, task) or f"{arm.name}={job.run_folder(arm, task)}"
    return command_of(_request(job, arm, task, method))


def is_scored(job: Reproduction, arm: Arm, task: Task) -> bool:
    """Tell whether the model that an arm is now has been scored on the whole of the task.

    From records alone: whether any model of its name has, by the rules of the study.
    """
    folder, protocol = job.evaluation_folder(arm, task), job.study.protocol
    settings = _settings(folder)
    if not (folder / TABLE_NAME).is_file() or settings is None:  # written when the last run is done
        return False
    rules = {"protocol": protocol.protocol().settings(), "split": protocol.split, "fold": job.fold}
    if any(settings.get(name) != value for name, value in json.loads(json.dumps(rules)).items()):
        return False
    try:
        there = {name: one["content_hash"] for name, one in settings["data"].items()}
        models, shown = dict(settings["models"]), settings.get("organ_mask", "none")
    except (LookupError, TypeError, AttributeError, ValueError):
        return False
    if job.records_only:
        ours = (
            next(iter(models), "") == arm.name
        )  # a network without clicks is two, also the part under the click
        return ours and list(there) == [data.name for data in task.data]
    method = named_method(job, arm, task) if all(is_prepared(job, data) for data in task.data) else None
    if method is None:
        return False
    hashes = {d.name: read_prepared_set(job.prepared(d)).content_hash for d in task.data}
    fingerprint = _fingerprint(arm, method, protocol.protocol().procedure)
    return (there, shown, set(models.values())) == (hashes, _organ_mask(job, arm, method), {fingerprint})


def score(job: Reproduction, arm: Arm, task: Task, on_message: OnMessage) -> None:
    """Score an arm on a task; goes on where it was."""
    method = named_method(job, arm, task)
    if method is None:
        return
    evaluated = run_evaluation(
        _request(job, arm, task, method),
        on_progress=lambda done, total, text: on_message(f"scoring {text}: {done} of {total}"),
    )
    write_text(job.evaluation_folder(arm, task) / _WARNINGS_NAME, "\n".join(evaluated.warnings))


def training_warnings(job: Reproduction) -> list[str]:
    """Return one sentence for every model that was scored on scans or patients of its training."""
    lines = [
        line
        for arm, task in itertools.product(job.study.arms, job.study.tasks)
        for one in job.repeats(arm)
        if (path := one.evaluation_folder(arm, task) / _WARNINGS_NAME).is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return list(dict.fromkeys(lines))


def compare(job: Reproduction, task: Task) -> Summary | None:
    """Write the report of all arms of a task that are scored; None where none is."""
    rows = scored_rows(job, task)
    if rows.empty:
        return None
    table = score_table(rows.drop(columns=["arm", "fold", "training", "task"]).to_dict("records"))
    protocol, reference = job.study.protocol.protocol(), job.study.reference
    names = ", ".join(dict.fromkeys(rows["arm"]))
    notes = [f"Of the study {job.study.name}, task {task.name}: {names}."]
    if (job.study.folds, job.study.seeds) != ((0,), ()):
        notes.append(
            f"Folds {', '.join(map(str, job.study.folds))}, each scored with its own trainings; training seeds "
            f"{', '.join(map(str, job.study.seeds)) or 'of the files'}. A user of a second training counts as "
            "another user."
        )
    if job.form == "text":
        notes.append("Trained as the text of the paper says, where a training file for it is known.")
    if job.steps is not None:
        notes.append(f"EVERY TRAINING WAS ENDED AFTER {job.steps} STEPS: this is a rehearsal.")
    folder = job.report_folder(task)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table, folder)
    return write_report(
        table,
        folder,
        reference=reference if reference in table["model"].cat.categories else None,
        provenance={"Study": job.study.title, "Version": f"clickvol {__version__}"},
        nsd_tolerance_mm=protocol.nsd_tolerance_mm,
        notes=notes,
    )


def scored_rows(job: Reproduction, *tasks: Task) -> pd.DataFrame:
    """Return the rows of all evaluations of tasks that are there, as `evaluation.records` has them.

    Further columns: `arm`, `fold`, `task`, and `training`, the number of the seed of its training. Users of
    further trainings have further numbers.
    """
    tables = []
    for task, arm in itertools.product(tasks, job.study.arms):
        for one in (one for one in job.repeats(arm) if is_scored(one, arm, task)):
            table = pd.read_parquet(one.evaluation_folder(arm, task) / TABLE_NAME)
            training = 0 if one.seed is None else job.study.seeds.index(one.seed)
            seed = table["seed"] + training * job.study.protocol.protocol().seeds
            more = {"arm": arm.name, "fold": one.fold, "task": task.name, "training": training, "seed": seed}
            tables.append(table.assign(**more))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def progress(job: Reproduction, rows: pd.DataFrame, *names: str) -> tuple[int, int]:
    """Return how many evaluations of arms are among `scored_rows` of all tasks, and how many there will be."""
    wanted = sum(len(job.repeats(arm)) for arm in job.study.arms if arm.name in names) * len(job.study.tasks)
    if rows.empty:
        return 0, wanted
    there = rows.loc[rows["arm"].isin(names), ["arm", "fold", "task", "training"]]
    return len(there.drop_duplicates()), wanted


def _organ_mask(job: Reproduction, arm: Arm, method: str) -> OrganMaskChoice:
    """Return what an arm is shown of organs: what the study says where its model looks at a mask."""
    card = Path(method.partition("=")[2])
    if not isinstance(arm, TrainArm) or not card.is_file():
        return "none"
    sources = read_card(card).network.get("encoder", {}).get("channel_sources", [0])
    return job.study.protocol.organ_mask if max(sources) > 0 else "none"


def _request(job: Reproduction, arm: Arm, task: Task, method: str) -> EvaluationRequest:
    return EvaluationRequest(
        methods=(method,),
        data=tuple(f"{data.name}={job.prepared(data)}" for data in task.data),
        folder=job.evaluation_folder(arm, task),
        protocol=job.study.protocol.protocol(),
        split=job.study.protocol.split,
        fold=job.fold,
        organ_mask=_organ_mask(job, arm, method),
        device=job.device,
    )


def _settings(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _fingerprint(arm: Arm, method: str, procedure: Procedure | None) -> str:
    """Return what an evaluation calls the method, without loading a network that was trained here."""
    if isinstance(arm, TrainArm):
        return model_fingerprint(read_card(method.partition("=")[2]), procedure)
    return _parsed_fingerprint(method, procedure, file_state(Path(method.rpartition(":")[2])))


@lru_cache(maxsize=256)
def _parsed_fingerprint(method: str, procedure: Procedure | None, _state: tuple[int, int]) -> str:
    """Load what a method names once while its file, or folder, stays."""
    return parse_methods([method], device="cpu", procedure=procedure)[0].fingerprint

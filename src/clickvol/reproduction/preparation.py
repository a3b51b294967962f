"""The data sets of a study: prepared once, with the published splits where they are known."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from clickvol.datasets.preparation import Outcome, PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import file_sha256, is_prepared_set, read_prepared_set
from clickvol.datasets.published import official_split, read_published
from clickvol.datasets.sources import list_source
from clickvol.datasets.splits import read_splits
from clickvol.errors import ConfigError
from clickvol.report.page import command_line
from clickvol.reproduction.study import DataSet
from clickvol.reproduction.workspace import Reproduction


def missing_source(job: Reproduction, data: DataSet) -> str | None:
    """Return in one line what to do when the raw folder is missing or holds other files; None for nothing."""
    folder = job.source(data)
    if folder.is_dir():
        there = source_sha256(data, folder) if data.sha256 else ""
        if there == data.sha256:
            return None
        return (
            f"{folder} holds other scans or labels than the study was made with (SHA-256 {there[:12]}..., "
            f"expected {data.sha256[:12]}...); take {data.name} again from where it came, or leave sha256 out"
        )
    obtain = f" ({data.obtain})" if data.obtain else ""
    return (
        f"{folder} is missing: the data set {data.name} is expected there{obtain}; put it there, or give "
        f"--data the folder that holds {data.folder}"
    )


def source_sha256(data: DataSet, folder: Path) -> str:
    """Return the SHA-256 over "ID IMAGE LABEL" of every case, a line each by id, with their files' SHA-256."""
    cases = sorted(list_source(data.layout, folder).cases, key=lambda case: case.case_id)
    lines = [f"{case.case_id} {file_sha256(case.image)} {file_sha256(case.label)}\n" for case in cases]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_prepared(job: Reproduction, data: DataSet) -> bool:
    """Tell whether a data set is prepared as the study wants it."""
    folder = job.prepared(data)
    if not is_prepared_set(folder):
        return False
    made, plan = read_prepared_set(folder), preparation_plan(job, data)
    if (made.kind, made.constants) != (plan.kind, plan.constants):
        return False
    if plan.spacing_dhw_mm is not None and made.target_spacing_dhw_mm != plan.spacing_dhw_mm:
        return False
    if plan.splits is None:
        return made.seed == plan.seed
    usable = {case.case_id for case in made.cases}
    return made.splits == tuple(fold.only(usable) for fold in read_splits(plan.splits))


def preparation_plan(job: Reproduction, data: DataSet) -> PreparationPlan:
    """Return the arguments of `clickvol data prepare`."""
    splits = job.splits.get(data.name)
    if splits is None and data.splits is not None:
        splits = job.file.next_to(data.splits)
    return PreparationPlan(
        kind=data.layout,
        source=job.source(data),
        destination=job.prepared(data),
        tumour_label=data.tumour_label,
        modality=data.modality,
        spacing_dhw_mm=data.spacing,
        constants=data.constants,
        groups=None if data.groups is None else job.file.next_to(data.groups),
        splits=splits,
        seed=data.seed,
        organs=data.organs,
        workers=job.workers,
    )


def preparation_command(job: Reproduction, data: DataSet) -> str:
    """Return the command that does the same."""
    plan = preparation_plan(job, data)
    spacing = plan.spacing_dhw_mm
    options = {
        "-o": plan.destination,
        "--modality": data.modality,
        "--seed": plan.seed,
        "--label": plan.tumour_label,
        "--spacing": ",".join(map(str, spacing)) if isinstance(spacing, tuple) else spacing,
        "--constants": plan.constants,
        "--groups": plan.groups,
        "--organs": plan.organs or None,
        "--splits": plan.splits,
    }
    return command_line("data", "prepare", plan.kind, str(plan.source), options)


def prepare(job: Reproduction, data: DataSet, report: Callable[[str], None]) -> None:
    """Prepare a data set; ConfigError when it is missing or cannot be used."""
    missing = missing_source(job, data)
    if missing is not None:
        raise ConfigError(missing)

    def on_case(done: int, total: int, last: Outcome) -> None:
        report(f"{data.name}: {done} of {total} cases, the last {last.case_id}")

    prepare_data_set(preparation_plan(job, data), on_case)


def split_note(job: Reproduction, data: DataSet) -> str:
    """Return one sentence on the split of a prepared data set."""
    made, plan = read_prepared_set(job.prepared(data)), preparation_plan(job, data)
    rejected = len(made.rejected)
    counts = "/".join(str(len(made.part(part))) for part in ("train", "val", "test"))
    official = None if data.constants is None else official_split(data.constants)
    if official is not None and made.splits[0] == official.only({case.case_id for case in made.cases}):
        return f"{data.name}: {counts} scans train/validate/test, the published ones; {rejected} rejected."
    how = f"drawn with seed {made.seed}" if plan.splits is None else f"of {plan.splits}"
    note = f"{data.name}: {counts} scans train/validate/test, {how}; {rejected} rejected."
    if data.constants is None:
        return note
    known = read_published(data.constants)
    theirs = f"{known.train_cases}/{known.validation_cases}/{known.test_cases}"
    return f"{note} The published numbers are {theirs}; these are not the published scans."

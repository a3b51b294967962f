"""Our numbers beside the published ones, as Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickvol.evaluation.contestants import CLICK_SUFFIX
from clickvol.evaluation.measures import MISSING, nsd_name
from clickvol.evaluation.protocol import NO_CLICK
from clickvol.files.atomic import atomic_path
from clickvol.report.summary import ScoreRow, Statistic, Summary
from clickvol.report.tables import Table
from clickvol.reproduction.data_steps import is_prepared, split_note
from clickvol.reproduction.study import Arm, ContestantArm, DataSet, PublishedScore
from clickvol.reproduction.workspace import Reproduction

TABLE_NAME = "table.md"
CSV_NAME = "table.csv"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One arm on one data set after one number of clicks.

    Attributes:
        arm: the row's name in files.
        title: its name for people; says so where the training was cut short.
        data: name of the data set.
        clicks: number of clicks; None where neither we nor a paper has a number.
        ours: our scores; None where there are none.
        published: the number to compare with; None where there is none.
    """

    arm: str
    title: str
    data: str
    clicks: int | None
    ours: ScoreRow | None
    published: PublishedScore | None


def table_rows(job: Reproduction, summaries: Mapping[str, Summary]) -> list[TableRow]:
    """Return the rows of all data sets: every arm of the study, also those without a number of ours.

    Args:
        job: what was done.
        summaries: by name of the task.
    """
    return [
        row
        for task in job.study.tasks
        for data in task.data
        for arm in job.study.arms
        for row in _rows(job, arm, data, summaries.get(task.name))
    ]


def write_table(job: Reproduction, summaries: Mapping[str, Summary], left_out: Sequence[str]) -> Path:
    """Write table.md and table.csv; the same scores give the same bytes.

    Args:
        job: what was done.
        summaries: by name of the task.
        left_out: one line on everything that was not run, with the command that would.

    Raises:
        OutputError: when they cannot be written.
    """
    rows = table_rows(job, summaries)
    job.results.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (TABLE_NAME, _markdown(job, rows, left_out)),
        (CSV_NAME, _csv(job, rows)),
    ):
        path = job.results / name
        with atomic_path(path, path.suffix) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return job.results / TABLE_NAME


def _rows(job: Reproduction, arm: Arm, data: DataSet, summary: Summary | None) -> Iterable[TableRow]:
    placements = {job.study.protocol.protocol().first_click, NO_CLICK}
    waiting = {score.clicks: score for score in arm.published if score.data == data.name}
    title = arm.title
    if job.steps is not None and not isinstance(arm, ContestantArm):
        title = f"{arm.title} (ONLY {job.steps} STEPS)"
    found = []
    for ours in () if summary is None else summary.rows:
        suffix = ours.model.removeprefix(arm.name)
        if ours.data != data.name or ours.placement not in placements:
            continue
        if not ours.model.startswith(arm.name) or suffix not in ("", CLICK_SUFFIX):
            continue
        theirs = waiting.pop(ours.num_clicks, None) if not suffix else None
        name = title + suffix
        found.append(TableRow(arm.name + suffix, name, data.name, ours.num_clicks, ours, theirs))
    found += [TableRow(arm.name, title, data.name, clicks, None, score) for clicks, score in waiting.items()]
    return found or [TableRow(arm.name, title, data.name, None, None, None)]


def _markdown(job: Reproduction, rows: Sequence[TableRow], left_out: Sequence[str]) -> str:
    study = job.study
    lines = [f"# {study.title}", ""]
    if job.steps is not None:
        lines += [
            f"**NOT THE SCHEDULE OF THE STUDY: every training was ended after {job.steps} steps. This is a "
            "rehearsal of the commands; its scores say nothing about the methods.**",
            "",
        ]
    tolerance = study.protocol.protocol().nsd_tolerance_mm
    for data in study.data:
        chosen = [row for row in rows if row.data == data.name]
        lines.append(_table(data, chosen, tolerance).markdown())
    lines += ["## How to read it", "", *(f"- {note}" for note in _notes(job, left_out)), ""]
    return "\n".join(lines)


def _table(data: DataSet, rows: Sequence[TableRow], tolerance_mm: float) -> Table:
    surface = nsd_name(tolerance_mm)
    header = (
        *("Method", "Clicks", "Dice, ours", "published", "difference"),
        *(f"NSD {tolerance_mm:g} mm, ours", "published", "difference", "Scans", "Failures"),
    )
    return Table(data.name, header, tuple(_cells(row, surface) for row in rows))


def _cells(row: TableRow, surface: str) -> tuple[str, ...]:
    ours, theirs = row.ours, row.published
    dice = None if ours is None else ours.statistics["dice"]
    nsd = None if ours is None else ours.statistics[surface]
    return (
        row.title,
        MISSING if row.clicks is None else str(row.clicks),
        "not run" if dice is None else _with_interval(dice),
        *_beside(dice, None if theirs is None else theirs.dice),
        "not run" if nsd is None else _with_interval(nsd),
        *_beside(nsd, None if theirs is None else theirs.nsd),
        MISSING if ours is None else str(ours.cases),
        MISSING if ours is None else str(ours.failures),
    )


def _with_interval(found: Statistic) -> str:
    """Return mean and interval in percent, as the papers print them."""
    if found.mean is None:
        return MISSING
    if found.low is None or found.high is None:
        return f"{100 * found.mean:.2f}"
    return f"{100 * found.mean:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def _beside(ours: Statistic | None, published: float | None) -> tuple[str, str]:
    """Return the published number, and by how much ours is above it."""
    if published is None:
        return MISSING, MISSING
    if ours is None or ours.mean is None:
        return f"{published:.2f}", MISSING
    return f"{published:.2f}", f"{100 * ours.mean - published:+.2f}"


def _notes(job: Reproduction, left_out: Sequence[str]) -> list[str]:
    study = job.study
    protocol = study.protocol.protocol()
    sources = sorted({score.source for arm in study.arms for score in arm.published})
    return [
        *([f"Reproduced: {study.source}."] if study.source else []),
        *(f"Published numbers: {source}." for source in sources),
        f"Percent. Ours: mean over scans and simulated users, in brackets its 95 % bootstrap interval over "
        f"patients. Protocol {protocol.name}: {protocol.title}; "
        f"{protocol.seeds} users per scan. A failure counts 0.",
        'Rows with 0 clicks are of methods that take none; "+ click" keeps of their answer the parts under the '
        "click.",
        *(split_note(job, data) for data in study.data if is_prepared(job, data)),
        *study.notes,
        *(f"Not run: {line}" for line in left_out),
        "Tests against the reference, all measures and failures: "
        + ", ".join(f"reports/{task.name}/report.md" for task in study.tasks)
        + ".",
        "For research use only, not a medical device.",
    ]


def _csv(job: Reproduction, rows: Sequence[TableRow]) -> str:
    surface = nsd_name(job.study.protocol.protocol().nsd_tolerance_mm)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures = [f"{name}_{what}" for name in ("dice", surface) for what in ("mean", "low", "high")]
    writer.writerow(
        [
            *("arm", "title", "data", "clicks", "scans", "patients", "failures", *measures),
            *(
                "published_dice_percent",
                "published_nsd_percent",
                "published_source",
                "training_ended_after",
            ),
        ]
    )
    for row in rows:
        ours, theirs = row.ours, row.published
        numbers: list[float | None] = []
        for name in ("dice", surface):
            found = Statistic(n=0) if ours is None else ours.statistics[name]
            numbers += [found.mean, found.low, found.high]
        writer.writerow(
            [
                *(row.arm, row.title, row.data, row.clicks),
                *((None,) * 3 if ours is None else (ours.cases, ours.groups, ours.failures)),
                *numbers,
                *((None,) * 3 if theirs is None else (theirs.dice, theirs.nsd, theirs.source)),
                job.steps,
            ]
        )
    return text.getvalue()

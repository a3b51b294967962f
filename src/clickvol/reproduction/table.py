"""Our numbers beside the published ones, as Markdown and CSV."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clickvol.evaluation.methods import CLICK_SUFFIX
from clickvol.evaluation.protocol import NO_CLICK
from clickvol.evaluation.records import write_csv
from clickvol.files.atomic import write_text
from clickvol.metrics.scores import nsd_name
from clickvol.report.summary import Summary
from clickvol.report.tables import MISSING, Table, whole_numbers, with_interval
from clickvol.reproduction.preparation import is_prepared, split_note
from clickvol.reproduction.scoring import progress, scored_rows, training_warnings
from clickvol.reproduction.study import Arm, DataSet, MethodArm, PublishedGain
from clickvol.reproduction.workspace import Reproduction

TABLE_NAME = "table.md"
CSV_NAME = "table.csv"
SPLIT_NOTES_NAME = "splits-note.json"

# A mean with a star differs from the reference's by this p value, as the papers mark theirs.
_MARKED_P = 0.05


def table_rows(job: Reproduction, summaries: Mapping[str, Summary]) -> pd.DataFrame:
    """Return the rows of all data sets: every arm of the study, also those without a number of ours.

    A row is one arm on one data set after one number of clicks (none where neither we nor a paper has a
    number). `title` says so where the training was cut short; our scores are 0 to 1, published ones percent.
    NAME_t_p is the p value of the paired t-test against the study's reference, not corrected, as in the papers.
    """
    rows = [
        row
        for task in job.study.tasks
        for data in task.data
        for arm in job.study.arms
        for row in _rows(job, arm, data, summaries.get(task.name))
    ]
    numbers = [f"{name}_{what}" for name in ("dice", _surface(job)) for what in ("mean", "low", "high", "t_p")]
    kinds = dict.fromkeys(("clicks", "scans", "patients", "failures", "training_ended_after"), "Int64")
    published = ("published_dice_percent", "published_nsd_percent")
    kinds |= dict.fromkeys((*numbers, *published), "float")
    names = ["arm", "title", "data", "clicks", "scans", "patients", "failures", *numbers]
    columns = [*names, *published, "published_source", "training_ended_after"]
    return pd.DataFrame(rows, columns=columns).astype(kinds)


def write_table(job: Reproduction, summaries: Mapping[str, Summary], left_out: Sequence[str]) -> Path:
    """Write table.md and table.csv; the same scores give the same bytes.

    `left_out` has one line on everything that was not run, with the command that would.
    """
    rows = table_rows(job, summaries)
    job.results.mkdir(parents=True, exist_ok=True)
    write_text(job.results / TABLE_NAME, _markdown(job, rows, left_out))
    write_csv(rows, job.results / CSV_NAME)
    return job.results / TABLE_NAME


def _surface(job: Reproduction) -> str:
    return nsd_name(job.study.protocol.protocol().nsd_tolerance_mm)


def _rows(job: Reproduction, arm: Arm, data: DataSet, summary: Summary | None) -> Iterable[dict[str, Any]]:
    title = arm.title
    if job.steps is not None and (not isinstance(arm, MethodArm) or arm.of_arm is not None):
        title = f"{arm.title} (ONLY {job.steps} STEPS)"
    published = {
        score.clicks: {
            "published_dice_percent": score.dice,
            "published_nsd_percent": score.nsd,
            "published_source": score.source,
        }
        for score in arm.published
        if score.data == data.name
    }
    row = {"arm": arm.name, "title": title, "data": data.name, "training_ended_after": job.steps}
    rows = []
    for ours in () if summary is None else _scores_of(job, arm, data, summary).to_dict("records"):
        suffix = ours["model"].removeprefix(arm.name)
        names = {"arm": arm.name + suffix, "title": title + suffix, "clicks": ours["num_clicks"]}
        counts = {"scans": ours["cases"], "patients": ours["groups"]}
        theirs = {} if suffix else published.pop(ours["num_clicks"], {})
        rows.append(ours | row | names | counts | theirs | _tests(job, ours, summary))
    rows += [row | {"clicks": clicks} | theirs for clicks, theirs in published.items()]
    return rows or [row]


def _tests(job: Reproduction, ours: dict[str, Any], summary: Summary | None) -> dict[str, float]:
    """Return the p values of a row of scores against the reference; without clicks, of its first number."""
    if summary is None or summary.comparisons.empty:
        return {}
    clicks = ours["num_clicks"] or job.study.protocol.protocol().num_clicks[0]
    all_rows = summary.comparisons
    same = all_rows["data"].eq(ours["data"]) & all_rows["model"].eq(ours["model"])
    rows = all_rows[same & all_rows["num_clicks"].isin((clicks, ours["num_clicks"]))]
    return {f"{name}_t_p": p for name, p in zip(rows["measure"], rows["t_p"], strict=True)}


def _scores_of(job: Reproduction, arm: Arm, data: DataSet, summary: Summary) -> pd.DataFrame:
    scores = summary.scores
    placements = (job.study.protocol.protocol().first_click, NO_CLICK)
    models = (arm.name, arm.name + CLICK_SUFFIX)
    is_here = scores["data"].eq(data.name) & scores["placement"].isin(placements) & scores["model"].isin(models)
    return scores[is_here]


def _markdown(job: Reproduction, rows: pd.DataFrame, left_out: Sequence[str]) -> str:
    study = job.study
    lines = [f"# {study.title}", ""]
    if job.form == "text":
        lines += ["Trained as the text of the paper says, where a training file for it is known.", ""]
    if job.steps is not None:
        lines += [
            f"**NOT THE SCHEDULE OF THE STUDY: every training was ended after {job.steps} steps. This is a "
            "rehearsal of the commands; its scores say nothing about the methods.**",
            "",
        ]
    for data in study.data:
        lines.append(Table(data.name, _cells(job, rows[rows["data"] == data.name])).markdown())
    lines += _gain_lines(job, rows)
    lines += ["## How to read it", "", *(f"- {note}" for note in _notes(job, left_out)), ""]
    return "\n".join(lines)


def _cells(job: Reproduction, rows: pd.DataFrame) -> pd.DataFrame:
    cells = {"Method": rows["title"], "Clicks": whole_numbers(rows["clicks"])}
    tolerance_mm = job.study.protocol.protocol().nsd_tolerance_mm
    measures = (("Dice", "dice", "dice"), (f"NSD {tolerance_mm:g} mm", _surface(job), "nsd"))
    for title, name, published_name in measures:
        published = rows[f"published_{published_name}_percent"]
        difference = 100 * rows[f"{name}_mean"] - published
        intervals = 100 * rows[[f"{name}_{what}" for what in ("mean", "low", "high")]]
        marks = rows[f"{name}_t_p"].lt(_MARKED_P).map({True: "* ", False: " "})
        cells[f"{title}, ours"] = [
            "not run" if pd.isna(scans) else f"{with_interval(2, *numbers)} ".replace(" ", mark, 1).rstrip()
            for scans, mark, *numbers in zip(rows["scans"], marks, *intervals.to_numpy().T, strict=True)
        ]
        cells[f"{name} published"] = [MISSING if pd.isna(value) else f"{value:.2f}" for value in published]
        cells[f"{name} difference"] = [MISSING if pd.isna(value) else f"{value:+.2f}" for value in difference]
    cells |= {"Scans": whole_numbers(rows["scans"]), "Failures": whole_numbers(rows["failures"])}
    table = pd.DataFrame(cells)
    table.columns = [name.removeprefix("dice ").removeprefix(f"{_surface(job)} ") for name in table.columns]
    return table


def _notes(job: Reproduction, left_out: Sequence[str]) -> list[str]:
    study = job.study
    protocol = study.protocol.protocol()
    sources = {score.source for arm in study.arms for score in arm.published}
    sources |= {gain.source for arm in study.arms for gain in arm.published_gains}
    return [
        *([f"Reproduced: {study.source}."] if study.source else []),
        *(f"Published numbers: {source}." for source in sorted(sources)),
        f"Percent. Ours: mean over scans and simulated users, in brackets its 95 % bootstrap interval over "
        f"patients. Protocol {protocol.name}: {protocol.title}; "
        f"{protocol.seeds} users per scan. A failure counts 0.",
        *_note_on_marks(job),
        'Rows with 0 clicks are of methods that take none; "+ click" keeps of their answer the parts under the '
        "click.",
        *_split_notes(job),
        *study.notes,
        *(f"WARNING: {warning}." for warning in training_warnings(job)),
        *_notes_on_progress(job),
        *(f"Not run: {line}" for line in left_out),
        "Tests against the reference, all measures and failures: "
        + ", ".join(f"reports/{task.name}/report.md" for task in study.tasks)
        + ".",
        "For research use only, not a medical device.",
    ]


def _split_notes(job: Reproduction) -> list[str]:
    """Return a sentence on the split of each data set, kept beside the table for when the data are gone."""
    path = job.results / SPLIT_NOTES_NAME
    notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    notes |= {data.name: split_note(job, data) for data in job.study.data if is_prepared(job, data)}
    write_text(path, json.dumps(notes, indent=1) + "\n")
    return [notes[data.name] for data in job.study.data if data.name in notes]


def _notes_on_progress(job: Reproduction) -> list[str]:
    """Return a sentence on each arm of which some folds and trainings are scored, and others are not yet."""
    rows = scored_rows(job, *job.study.tasks)
    there = {arm.title: progress(job, rows, arm.name) for arm in job.study.arms}
    return [
        f"NOT COMPLETE: {title}, {scored} of {wanted} evaluations (folds and trainings)."
        for title, (scored, wanted) in there.items()
        if 0 < scored < wanted
    ]


def _gain_lines(job: Reproduction, rows: pd.DataFrame) -> list[str]:
    """Return the section with the gains that a paper names where it, or its abstract, gives no scores."""
    lines = [
        f"- {arm.title}, {gain.data}, {gain.clicks} clicks: published {gain.percent:+g} % over "
        f"the best of {', '.join(gain.over)} ({gain.source}); ours {_our_gain(rows, arm, gain)}."
        for arm in job.study.arms
        for gain in arm.published_gains
    ]
    return ["## Published gains in Dice, in percent of the other's", "", *lines, ""] if lines else []


def _our_gain(rows: pd.DataFrame, arm: Arm, gain: PublishedGain) -> str:
    here = rows[rows["data"].eq(gain.data) & rows["clicks"].isin((0, gain.clicks)) & rows["dice_mean"].notna()]
    means = here.set_index("arm")["dice_mean"]
    wanted = means[means.index.isin(gain.over)]
    if arm.name not in means.index or wanted.empty or wanted.max() <= 0:
        return "not run"
    return f"{100 * (means[arm.name] / wanted.max() - 1):+.2f} % over {wanted.idxmax()}"


def _note_on_marks(job: Reproduction) -> list[str]:
    reference = next((arm for arm in job.study.arms if arm.name == job.study.reference), None)
    if reference is None:
        return []
    return [
        f"*: differs from {reference.title}, p < {_MARKED_P:g} in a paired two-tailed t-test over patients, "
        "not corrected for several tests; corrected by Holm it stands in the reports."
    ]

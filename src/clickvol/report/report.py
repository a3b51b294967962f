"""The report of an evaluation: records and tables as files, figures, and one page that shows them."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clickvol.evaluation.measures import measures_of, nsd_name
from clickvol.evaluation.records import NSD_TOLERANCES_MM, ClickScore
from clickvol.files.atomic import atomic_path
from clickvol.metrics.clicks import DICE_TO_REACH
from clickvol.report.case_table import case_rows, case_tables
from clickvol.report.figures import write_figures
from clickvol.report.series import ordered
from clickvol.report.statistics import RESAMPLES
from clickvol.report.summary import ScoreRow, Summary, summarise
from clickvol.report.tables import markdown_cell, report_tables

_SHOWN_FAILURES = 20

_POLICIES = (
    "Means are over all records: cases times simulated users. In brackets: 95 % interval of the mean by "
    "the percentile bootstrap that draws patients ({resamples} resamples, seed {seed}); none for fewer than "
    "two patients.",
    "NSD, HD95 and ASSD follow DeepMind's surface-distance: surface elements weighted by their area, in mm. "
    "HD95 is the larger of the two surfaces' distances within which 95 % of the area lies; ASSD is the mean "
    "over the area of both.",
    "A failure (error, no answer in time) counts as an empty mask: Dice, IoU, NSD and lesion recall 0. An "
    "empty mask has no HD95 and no ASSD; their means leave it out, so read them beside the failures and "
    "the Dice.",
    "Cases with an empty label are not evaluated.",
    "The tables of single scans have the first models; all models and measures are in cases.csv.",
    "Lesion recall: share of the label's 26-connected components, of any size, with at least one voxel in "
    "the mask.",
    "Area under Dice: trapezoids over the numbers of clicks, divided by their range. Clicks to reach Dice "
    "{dice_to_reach:g}: the first number of clicks that was scored and reaches it.",
    "Differences to the reference are between means per patient, of the cases that both models have; a "
    "model without clicks is compared as it is with each number of clicks. p values: two-tailed paired "
    "t-test and Wilcoxon signed-rank test (zero differences left out), corrected by Holm for the models "
    "of the same data, first click, number of clicks and measure; none for fewer than two patients or, in "
    "the t-test, constant differences; 1 where all differences are zero.",
)


def write_report(
    scores: Iterable[ClickScore],
    folder: Path,
    *,
    reference: str | None = None,
    provenance: Mapping[str, str] | None = None,
    nsd_tolerance_mm: float = NSD_TOLERANCES_MM[-1],
    notes: Sequence[str] = (),
    pictures: Mapping[str, Path] | None = None,
    resamples: int = RESAMPLES,
) -> Summary:
    """Write the report of an evaluation; the same records and words give the same bytes.

    The folder then has report.md, scores.csv (records), cases.csv (scans, means over users), summary.csv,
    summary.json, tables.tex, click_curve.png, box_plot.png and volume_bland_altman.png, replaced where there.

    Args:
        scores: all records.
        folder: where to; made if need be.
        reference: model that the others are compared with; None for no comparison.
        provenance: what the numbers come from, such as command, seeds, versions, hardware: name and words.
        nsd_tolerance_mm: of the surface Dice that is compared with the reference.
        notes: further sentences for the page, such as cases that were left out.
        pictures: files of cases by caption, in the folder or below.
        resamples: of the bootstrap.

    Returns:
        What stands in the tables.

    Raises:
        ConfigError: for records that make no table (see `summarise`), or without matplotlib.
        OutputError: when a file cannot be written.
    """
    records = ordered(scores)
    summary = summarise(records, reference=reference, nsd_tolerance_mm=nsd_tolerance_mm, resamples=resamples)
    folder.mkdir(parents=True, exist_ok=True)
    figures = write_figures(records, summary, folder)
    cases = case_rows(records)
    tables = [*report_tables(summary), *case_tables(records, cases)]
    _write(folder / "scores.csv", _csv(map(_score_cells, records)))
    _write(folder / "cases.csv", _csv(row.cells() for row in cases))
    _write(folder / "summary.csv", _csv(_summary_cells(row, summary) for row in summary.rows))
    _write(folder / "summary.json", summary.model_dump_json(indent=2) + "\n")
    _write(folder / "tables.tex", "\n".join(table.latex() for table in tables))
    sections = [
        "# Evaluation\n",
        *_provenance(provenance or {}),
        "## Tables\n",
        *(table.markdown() for table in tables),
        *_policies(summary, notes),
        *_failures(records),
        "## Figures\n",
        *(_picture(caption, path, folder) for caption, path in figures.items()),
        *(["## Cases\n"] if pictures else []),
        *(_picture(caption, path, folder) for caption, path in (pictures or {}).items()),
    ]
    _write(folder / "report.md", "\n".join(sections))
    return summary


def _write(path: Path, text: str) -> None:
    with atomic_path(path, path.suffix) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows of the same names as CSV; None is an empty cell."""
    found = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def _score_cells(score: ClickScore) -> dict[str, object]:
    cells: dict[str, object] = {}
    for name, value in score:
        if name == "nsd":
            cells |= {nsd_name(mm): score.nsd_at(mm) for mm in score.nsd_tolerances_mm}
        elif name != "nsd_tolerances_mm":
            cells[name] = value
    return cells


def _summary_cells(row: ScoreRow, summary: Summary) -> dict[str, object]:
    cells: dict[str, object] = {name: value for name, value in row if name not in ("statistics", "failures")}
    cells["failures"] = row.failures
    for what in measures_of(summary.nsd_tolerances_mm):
        cells |= {f"{what.name}_{name}": value for name, value in row.statistics[what.name]}
    return cells


def _provenance(provenance: Mapping[str, str]) -> list[str]:
    lines = [f"- {name}: {' '.join(words.split())}" for name, words in provenance.items()]
    return [*lines, "- For research use only, not a medical device\n"]


def _policies(summary: Summary, notes: Sequence[str]) -> list[str]:
    known = {
        "resamples": summary.resamples,
        "seed": summary.seed,
        "dice_to_reach": DICE_TO_REACH,
    }
    lines = [policy.format(**known) for policy in _POLICIES]
    return ["## How to read them\n", *(f"- {line}" for line in [*lines, *notes]), ""]


def _failures(records: Sequence[ClickScore]) -> list[str]:
    failed = [r for r in records if r.failure is not None]
    if not failed:
        return []
    lines = [
        f"- {markdown_cell(_run_name(r))}: {markdown_cell(r.failure or '')}" for r in failed[:_SHOWN_FAILURES]
    ]
    more = len(failed) - len(lines)
    if more:
        lines.append(f"- and {more} more, in scores.csv")
    return [f"## Failures ({len(failed)})\n", *lines, ""]


def _run_name(score: ClickScore) -> str:
    case = f"{score.model}, {score.data} {score.case_id}, seed {score.seed}"
    return f"{case}, first click {score.placement}, {score.num_clicks} clicks"


def _picture(caption: str, path: Path, folder: Path) -> str:
    place = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"![{markdown_cell(caption)}](<{place.as_posix()}>)\n"

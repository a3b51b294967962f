"""The tables of a report as words, for Markdown and LaTeX."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from clickvol.evaluation.protocol import NO_CLICK
from clickvol.evaluation.records import main_placement, measures_of
from clickvol.metrics.click_curve import DICE_TO_REACH
from clickvol.metrics.scores import Measure
from clickvol.report.summary import Summary

MISSING = "\N{EN DASH}"
"""What stands where there is no number."""

# Models whose scans stand on the page, the first ones. Chosen: as many as are shown in pictures; the others are
# in the file.
_SHOWN_MODELS = 4

_LATEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        MISSING: "--",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Words in rows under a caption of one line; the first column holds names."""

    caption: str
    cells: pd.DataFrame

    def markdown(self) -> str:
        """Return a heading and a table; names are on the left, numbers on the right."""
        marks = ["---", *["---:"] * (len(self.cells.columns) - 1)]
        lines = [self.cells.columns, marks, *self.cells.to_numpy()]
        rows = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in lines]
        return "\n".join([f"### {markdown_cell(self.caption)}", "", *rows, ""])

    def latex(self) -> str:
        """Return a `tabular` that needs no package, below a comment with the caption."""
        # The braces keep a bracket at the start of a row from being an argument of the line break before it.
        rows = ["{}" + " & ".join(map(latex_text, row)) + r" \\" for row in self.cells.to_numpy()]
        return "\n".join(
            [
                f"% {' '.join(self.caption.split())}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.cells.columns) - 1)}}}",
                r"\hline",
                " & ".join(map(latex_text, self.cells.columns)) + r" \\",
                r"\hline",
                *rows,
                r"\hline",
                r"\end{tabular}",
                "",
            ]
        )


def markdown_cell(text: str) -> str:
    """Return a text that is one line and does not end its cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", r"\|")


def latex_text(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return " ".join(text.split()).translate(_LATEX_ESCAPES)


def number(value: float, digits: int) -> str:
    """Return a number with so many digits behind the point, or the mark for a missing one."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def whole_numbers(numbers: pd.Series) -> list[str]:
    """Return counts as they are printed, or the mark for a missing one."""
    return [MISSING if pd.isna(value) else str(value) for value in numbers]


def p_value(p: float) -> str:
    """Return a p value with three digits; what is smaller is only said to be so."""
    return "<0.001" if p < 0.001 else number(p, 3)


def with_interval(digits: int, mean: float, low: float, high: float) -> str:
    """Return a mean and, where there is one, its interval in brackets."""
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return number(mean, digits) + interval


def report_tables(table: pd.DataFrame, summary: Summary, cases: pd.DataFrame) -> list[Table]:
    """Return the tables of a report in their order: scores, first clicks, click curves, comparisons, scans."""
    measures = measures_of(table)
    placements = [main_placement(table), NO_CLICK]
    return [
        *_score_tables(summary.scores, measures),
        *_placement_tables(summary.scores),
        *_curve_tables(summary.curves),
        *_comparison_tables(summary, {measure.name: measure for measure in measures}),
        *_case_tables(cases[cases["placement"].isin(placements)]),
    ]


def _by_data(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if len(rows):
        yield from rows.groupby("data", observed=True)


def _words(rows: pd.DataFrame, name: str, digits: int) -> list[str]:
    return [number(value, digits) for value in rows[name]]


def _means(rows: pd.DataFrame, name: str, digits: int, *, interval: bool = True) -> list[str]:
    if not interval:
        return _words(rows, f"{name}_mean", digits)
    columns = rows[[f"{name}_{what}" for what in ("mean", "low", "high")]]
    return [with_interval(digits, *numbers) for numbers in columns.itertuples(index=False)]


def _score_tables(scores: pd.DataFrame, measures: tuple[Measure, ...]) -> Iterator[Table]:
    """One table per data set: mean scores of every model after every number of clicks."""
    for data, rows in _by_data(scores):
        means = {m.title: _means(rows, m.name, m.digits, interval=m.with_interval) for m in measures}
        cells = {
            "model": rows["model"].astype(str),
            "first click": rows["placement"].astype(str),
            "clicks": rows["num_clicks"].astype(str),
            "cases (patients)": rows["cases"].astype(str) + " (" + rows["groups"].astype(str) + ")",
            "Dice": means.pop("Dice"),
            "median Dice": _words(rows, "dice_median", 3),
            **means,
            "failures": rows["failures"].astype(str) + "/" + rows["records"].astype(str),
        }
        yield Table(f"{data}: mean scores", pd.DataFrame(cells))


def _placement_tables(scores: pd.DataFrame) -> Iterator[Table]:
    """One table per data set: Dice after one click by where the click was put, if there is a choice."""
    for data, rows in _by_data(scores[scores["num_clicks"] == 1]):
        cells = pd.DataFrame(
            {"model": rows["model"], "placement": rows["placement"], "Dice": _means(rows, "dice", 3)}
        )
        cells = cells.pivot(index="model", columns="placement", values="Dice").astype(object).fillna(MISSING)
        if len(cells.columns) > 1:
            cells.columns = [str(name) for name in cells.columns]
            yield Table(f"{data}: Dice after one click, by where it was put", cells.reset_index())


def _curve_tables(curves: pd.DataFrame) -> Iterator[Table]:
    """One table per data set: what several clicks were worth, if there were several."""
    for data, rows in _by_data(curves[curves["num_clicks"].map(len) > 1]):
        cells = {
            "model": rows["model"],
            "first click": rows["placement"],
            "clicks": [", ".join(map(str, clicks)) for clicks in rows["num_clicks"]],
            "runs": rows["runs"].astype(str),
            "area under Dice": _means(rows, "dice_area", 3),
            f"runs that reach Dice {DICE_TO_REACH:g}": [
                f"{100 * reached:.0f} %" if runs else MISSING
                for reached, runs in zip(rows["reached"], rows["runs"], strict=True)
            ],
            "mean clicks of those": _words(rows, "clicks_to_reach", 1),
        }
        yield Table(f"{data}: worth of the clicks", pd.DataFrame(cells))


def _comparison_tables(summary: Summary, measures: dict[str, Measure]) -> Iterator[Table]:
    """One table per data set: every model minus the reference."""
    for data, rows in _by_data(summary.comparisons):
        numbers = rows[["measure", "difference", "low", "high"]]
        cells = {
            "model": rows["model"],
            "first click": rows["placement"],
            "clicks": rows["num_clicks"].astype(str),
            "measure": [measures[name].title for name in rows["measure"]],
            "patients": rows["groups"].astype(str),
            "difference": [
                with_interval(measures[name].digits, *interval)
                for name, *interval in numbers.itertuples(index=False)
            ],
        }
        table = pd.DataFrame(cells)
        for name, title in (("t_p", "t-test p"), ("wilcoxon_p", "Wilcoxon p")):
            table[title] = [p_value(p) for p in rows[name]]
            table[f"{name}_holm"] = [p_value(p) for p in rows[f"{name}_holm"]]
        table["cases left out"] = rows["unpaired_cases"].astype(str)
        table.columns = [name if "_holm" not in name else "p (Holm)" for name in table.columns]
        yield Table(f"{data}: difference to {summary.reference}", table)


def _case_tables(cases: pd.DataFrame) -> Iterator[Table]:
    """One table per data set: Dice of every scan after every number of clicks, of the first models."""
    models = list(dict.fromkeys(cases["model"]))[:_SHOWN_MODELS]
    for data, rows in _by_data(cases[cases["model"].isin(models)]):
        scans = rows.drop_duplicates(["model", "case_id"]).set_index(["model", "case_id"])
        dice = rows.pivot(index=["model", "case_id"], columns="num_clicks", values="dice")
        cells = pd.DataFrame(
            {"patient": scans["group"]}
            | ({"label (ml)": _words(scans, "truth_ml", 1)} if "truth_ml" in scans else {}),
            index=scans.index,
        )
        for clicks in dice.columns:
            title = "1 click" if clicks == 1 else f"{clicks} clicks"
            cells[title] = _words(dice.loc[scans.index], clicks, 3)
        cells = cells.reset_index().rename(columns={"case_id": "scan"})
        yield Table(f"{data}: Dice of each scan, mean over users", cells.astype(str))

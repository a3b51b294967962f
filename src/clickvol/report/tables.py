"""The tables of a report, for Markdown and LaTeX."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clickvol.evaluation.measures import DICE, MISSING, Measure, measures_of
from clickvol.report.summary import CurveRow, ScoreRow, Statistic, Summary

_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        MISSING: "--",
    }
)


@dataclass(frozen=True, slots=True)
class Table:
    """Words in rows.

    Attributes:
        caption: one line.
        header: of the columns.
        rows: as many cells each; the first is a name.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return a heading and a table; names are on the left, numbers on the right."""
        marks = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [self.header, tuple(marks), *self.rows]
        rows = ["| " + " | ".join(map(markdown_cell, line)) + " |" for line in lines]
        return "\n".join([f"### {markdown_cell(self.caption)}", "", *rows, ""])

    def latex(self) -> str:
        """Return a `tabular` that needs no package, below a comment with the caption."""
        # The braces keep a bracket at the start of a row from being an argument of the line break before it.
        rows = ["{}" + " & ".join(map(latex_text, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                f"% {' '.join(self.caption.split())}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\hline",
                " & ".join(map(latex_text, self.header)) + r" \\",
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


def report_tables(summary: Summary) -> list[Table]:
    """Return the tables of a report in their order: scores, first clicks, click curves, comparisons."""
    measures = measures_of(summary.nsd_tolerances_mm)
    tables = list(_score_tables(summary.rows, measures))
    tables += _placement_tables(summary.rows)
    tables += _curve_tables(summary.curves, summary.dice_to_reach)
    tables += _comparison_tables(summary, {m.name: m for m in measures})
    return tables


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits behind the point, or the mark for a missing one."""
    return MISSING if value is None else f"{value:.{digits}f}"


def p_value(p: float | None) -> str:
    """Return a p value with three digits; what is smaller is only said to be so."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _with_interval(found: Statistic, digits: int) -> str:
    mean = number(found.mean, digits)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _mean(row: ScoreRow, what: Measure) -> str:
    found = row.statistics[what.name]
    if what.with_interval:
        return _with_interval(found, what.digits)
    return number(found.mean, what.digits)


def _score_tables(rows: Iterable[ScoreRow], measures: Sequence[Measure]) -> Iterable[Table]:
    """One table per data set: mean scores of every model after every number of clicks."""
    rows = tuple(rows)
    others = [m for m in measures if m is not DICE]
    for data in dict.fromkeys(row.data for row in rows):
        yield Table(
            caption=f"{data}: mean scores",
            header=(
                "model",
                "first click",
                "clicks",
                "cases (patients)",
                DICE.title,
                "median Dice",
                *(m.title for m in others),
                "failures",
            ),
            rows=tuple(
                (
                    row.model,
                    row.placement,
                    str(row.num_clicks),
                    f"{row.cases} ({row.groups})",
                    _mean(row, DICE),
                    number(row.statistics[DICE.name].median, DICE.digits),
                    *(_mean(row, m) for m in others),
                    f"{row.failures}/{row.records}",
                )
                for row in rows
                if row.data == data
            ),
        )


def _placement_tables(rows: tuple[ScoreRow, ...]) -> Iterable[Table]:
    """One table per data set: Dice after one click by where the click was put, if there is a choice."""
    first = [row for row in rows if row.num_clicks == 1]
    for data in dict.fromkeys(row.data for row in first):
        here = [row for row in first if row.data == data]
        placements = list(dict.fromkeys(row.placement for row in here))
        if len(placements) < 2:
            continue
        dice = {(row.model, row.placement): _mean(row, DICE) for row in here}
        yield Table(
            caption=f"{data}: Dice after one click, by where it was put",
            header=("model", *placements),
            rows=tuple(
                (model, *(dice.get((model, placement), MISSING) for placement in placements))
                for model in dict.fromkeys(row.model for row in here)
            ),
        )


def _curve_tables(curves: Iterable[CurveRow], dice_to_reach: float) -> Iterable[Table]:
    """One table per data set: what several clicks were worth, if there were several."""
    several = [curve for curve in curves if len(curve.num_clicks) > 1]
    for data in dict.fromkeys(curve.data for curve in several):
        yield Table(
            caption=f"{data}: worth of the clicks",
            header=(
                "model",
                "first click",
                "clicks",
                "runs",
                "area under Dice",
                f"runs that reach Dice {dice_to_reach:g}",
                "mean clicks of those",
            ),
            rows=tuple(
                (
                    curve.model,
                    curve.placement,
                    ", ".join(map(str, curve.num_clicks)),
                    str(curve.runs),
                    _with_interval(curve.dice_area, DICE.digits),
                    f"{100 * curve.reached:.0f} %" if curve.runs else MISSING,
                    number(curve.clicks_to_reach, 1),
                )
                for curve in several
                if curve.data == data
            ),
        )


def _comparison_tables(summary: Summary, measures: Mapping[str, Measure]) -> Iterable[Table]:
    """One table per data set: every model minus the reference."""
    for data in dict.fromkeys(c.data for c in summary.comparisons):
        yield Table(
            caption=f"{data}: difference to {summary.reference}",
            header=(
                "model",
                "first click",
                "clicks",
                "measure",
                "patients",
                "difference",
                "t-test p",
                "p (Holm)",
                "Wilcoxon p",
                "p (Holm)",
                "cases left out",
            ),
            rows=tuple(
                (
                    c.model,
                    c.placement,
                    str(c.num_clicks),
                    measures[c.measure].title,
                    str(c.groups),
                    _with_interval(
                        Statistic(n=c.groups, mean=c.difference, low=c.low, high=c.high),
                        measures[c.measure].digits,
                    ),
                    p_value(c.t_p),
                    p_value(c.t_p_holm),
                    p_value(c.wilcoxon_p),
                    p_value(c.wilcoxon_p_holm),
                    str(c.unpaired_cases),
                )
                for c in summary.comparisons
                if c.data == data
            ),
        )

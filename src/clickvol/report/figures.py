"""The figures of a report: Dice over clicks, Dice per model, and volumes against the truth."""

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickvol.errors import ConfigError
from clickvol.evaluation.measures import DICE
from clickvol.evaluation.records import ClickScore
from clickvol.files.atomic import atomic_path
from clickvol.report.series import main_placement, ordered
from clickvol.report.summary import ScoreRow, Statistic, Summary

# Told apart also by the colour-blind (M. Okabe and K. Ito, Color universal design, 2008); without their yellow,
# which is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")

_DOTS_PER_INCH = 130
_PANEL_INCHES = (4.6, 3.6)
_GRID = {"color": "0.88", "linewidth": 0.8}

# Of a normal distribution, 95 % lie within so many standard deviations (J. Bland and D. Altman, 1986).
_LIMITS_DEVIATIONS = 1.96

# Volumes over a wider range than this are only legible on a logarithmic axis (chosen).
_WIDE_RANGE = 20.0

_Axes = Any  # of matplotlib, which has no types here


def write_figures(scores: Iterable[ClickScore], summary: Summary, folder: Path) -> dict[str, Path]:
    """Draw the figures of a report.

    Args:
        scores: the records.
        summary: of these records.
        folder: where the files are put; must exist.

    Returns:
        The PNG files by caption.

    Raises:
        ConfigError: when matplotlib is not installed.
        OutputError: when a file cannot be written.
    """
    records = ordered(scores)
    placement = main_placement(records)
    shown = [r for r in records if r.num_clicks == 0 or r.placement == placement]
    rows = [row for row in summary.rows if row.num_clicks == 0 or row.placement == placement]
    models = list(dict.fromkeys(r.model for r in shown))
    figures = {
        "Dice by number of clicks": ("click_curve.png", _click_curve(rows, models)),
        "Dice of the cases": ("box_plot.png", _box_plot(shown, models)),
        "Volume of the mask against the truth": (
            "volume_bland_altman.png",
            _bland_altman(_last_clicks(shown), models),
        ),
    }
    paths = {}
    for caption, (name, figure) in figures.items():
        paths[caption] = folder / name
        with atomic_path(folder / name, ".png") as temporary:
            # Without the version that drew it, the same records give the same bytes.
            figure.savefig(temporary, dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return paths


def _matplotlib_figure() -> Callable[..., Any]:
    try:
        figure: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ConfigError("figures need the package matplotlib; pip install 'clickvol[evaluate]'") from error
    # A Figure of its own draws with Agg: no window and no state that others share.
    made: Callable[..., Any] = figure.Figure
    return made


def _panels(
    titles: Sequence[str],
    *,
    size_inches: tuple[float, float] = _PANEL_INCHES,
    least_height: float = 0.0,
    more_width: float = 0.0,
) -> tuple[Any, list[_Axes]]:
    """Return a figure with one panel per title, up to three in a row; more width is for a legend, in inches."""
    columns = min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    width, height = size_inches
    figure = _matplotlib_figure()(
        figsize=(width * columns + more_width, max(height * rows, least_height)),
        layout="constrained",
    )
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(titles) :]:
        panel.remove()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, fontsize=10)
        panel.grid(visible=True, **_GRID)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels[: len(titles)]


def _look(model: str, models: Sequence[str]) -> dict[str, Any]:
    index = models.index(model)
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def _click_curve(rows: Sequence[ScoreRow], models: Sequence[str]) -> Any:  # noqa: ANN401  # matplotlib's
    """Mean Dice over clicks with its interval; a model without clicks is a level, its interval at the right."""
    data = list(dict.fromkeys(row.data for row in rows))
    titles = [f"{name}\n{_count([row for row in rows if row.data == name])}" for name in data]
    labels = {
        model: model if any(row.num_clicks for row in rows if row.model == model) else f"{model} (no click)"
        for model in models
    }
    longest = max(map(len, labels.values()))
    figure, panels = _panels(titles, least_height=0.6 + 0.21 * len(models), more_width=0.7 + 0.085 * longest)
    handles: dict[str, Any] = {}
    for panel, name in zip(panels, data, strict=True):
        here = [row for row in rows if row.data == name]
        clicks = sorted({row.num_clicks for row in here} - {0}) or [0]
        step = 0.025 * max(clicks[-1] - clicks[0], 1)
        for rank, model in enumerate(models):
            means = [(row.num_clicks, row.statistics[DICE.name]) for row in here if row.model == model]
            if means:
                handles[model] = _curve(
                    panel, means, clicks, _look(model, models), clicks[-1] + step * (rank + 1)
                )
        panel.set_xticks(clicks)
        panel.set_xlabel("clicks")
        panel.set_ylabel("mean Dice, 95 % interval")
        panel.set_ylim(0, 1)
    figure.legend(
        handles.values(),
        [labels[model] for model in handles],
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    return figure


def _curve(
    panel: _Axes,
    means: list[tuple[int, Statistic]],
    clicks: Sequence[int],
    look: dict[str, Any],
    bar_at: float,
) -> Any:  # noqa: ANN401  # matplotlib's
    """Draw one model: a band around a curve, or a level or point with a bar at a place on the x axis."""
    if len(means) > 1:
        found = [(n, s.low, s.high) for n, s in means if s.low is not None]
        if found:
            x, low, high = zip(*found, strict=True)
            panel.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
    else:
        num_clicks, one = means[0]
        if one.low is not None:
            panel.vlines(bar_at, one.low, one.high, color=look["color"], linewidth=1.8)
        if num_clicks == 0:  # as wide as the panel
            means, look = [(clicks[0], one), (clicks[-1], one)], look | {"marker": None}
    (line,) = panel.plot([n for n, _ in means], [s.mean for _, s in means], markersize=5, linewidth=1.8, **look)
    return line


def _count(rows: Sequence[ScoreRow]) -> str:
    cases, groups = max(row.cases for row in rows), max(row.groups for row in rows)
    return f"n = {cases} {_plural(cases, 'case')}, {groups} {_plural(groups, 'patient')}"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _box_plot(records: Sequence[ClickScore], models: Sequence[str]) -> Any:  # noqa: ANN401  # matplotlib's
    """Dice of every case, mean over its users: quartiles, and every case as a point."""
    data = list(dict.fromkeys(r.data for r in records))
    rows = [
        (model, n)
        for model in models
        for n in _ends(sorted({r.num_clicks for r in records if r.model == model}))
    ]
    titles = [f"{name}\n{_count_cases([r for r in records if r.data == name])}" for name in data]
    size = (5.6, 1.3 + 0.34 * len(rows))
    figure, panels = _panels(titles, size_inches=size)
    for panel, name in zip(panels, data, strict=True):
        here = [r for r in records if r.data == name]
        for place, (model, n) in enumerate(rows):
            values = list(
                _case_means(
                    [r for r in here if (r.model, r.num_clicks) == (model, n)], lambda r: r.dice
                ).values()
            )
            if not values:
                continue
            colour = _look(model, models)["color"]
            panel.boxplot(
                [values],
                positions=[place],
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour},
                medianprops={"color": "black", "linewidth": 1.6},
                whiskerprops={"color": colour},
                capprops={"color": colour},
            )
            # Side by side in a fixed pattern, so that equal cases do not hide each other.
            shifts = 0.12 * (np.arange(len(values)) % 3 - 1)
            panel.plot(values, place + shifts, ".", color=colour, markersize=5, zorder=3)
        panel.set_yticks(range(len(rows)), [_label(model, n) for model, n in rows], fontsize=9)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel("Dice of a case, mean over users")
    return figure


def _ends(clicks: Sequence[int]) -> list[int]:
    """Return the first and the last number of clicks."""
    return sorted({clicks[0], clicks[-1]})


def _label(model: str, num_clicks: int) -> str:
    if num_clicks == 0:
        return f"{model}, no click"
    return f"{model}, {num_clicks} {_plural(num_clicks, 'click')}"


def _count_cases(records: Sequence[ClickScore]) -> str:
    cases = len({(r.data, r.case_id) for r in records})
    groups = len({(r.data, r.group) for r in records})
    return f"n = {cases} {_plural(cases, 'case')}, {groups} {_plural(groups, 'patient')}"


def _case_means(records: Sequence[ClickScore], read: Callable[[ClickScore], float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for r in records:
        found.setdefault(r.case_id, []).append(read(r))
    return {case: float(np.mean(values)) for case, values in found.items()}


def _last_clicks(records: Sequence[ClickScore]) -> list[ClickScore]:
    """Return the records of each model after its largest number of clicks."""
    largest: dict[str, int] = {}
    for r in records:
        largest[r.model] = max(r.num_clicks, largest.get(r.model, 0))
    return [r for r in records if r.num_clicks == largest[r.model]]


def _bland_altman(records: Sequence[ClickScore], models: Sequence[str]) -> Any:  # noqa: ANN401  # matplotlib's
    """Per model: mask volume minus true volume over their mean, with mean and limits of agreement."""
    data = list(dict.fromkeys(r.data for r in records))
    clicks = {r.model: r.num_clicks for r in records}
    titles = [
        f"{_label(model, clicks[model])}\n{_count_cases([r for r in records if r.model == model])}"
        for model in models
    ]
    longest = max(map(len, data)) if len(data) > 1 else 0
    figure, panels = _panels(titles, more_width=0.7 + 0.085 * longest if longest else 0.0)
    for panel, model in zip(panels, models, strict=True):
        every, x = [], []
        for number, name in enumerate(data):
            own = [r for r in records if (r.model, r.data) == (model, name)]
            masks, truths = (
                _case_means(own, lambda r: r.mask_ml),
                _case_means(own, lambda r: r.truth_ml),
            )
            means = [(masks[case] + truths[case]) / 2 for case in masks]
            errors = [masks[case] - truths[case] for case in masks]
            panel.plot(
                means,
                errors,
                _MARKERS[number % len(_MARKERS)],
                color=_COLOURS[number % len(_COLOURS)],
                markersize=5,
                alpha=0.8,
                zorder=4,  # in front of the numbers
                label=name,
            )
            every += errors
            x += means
        _mark_limits(panel, every)
        if min(x) > 0 and max(x) > _WIDE_RANGE * min(x):
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("mean of mask and true volume (ml)")
        panel.set_ylabel("mask minus true volume (ml)")
    if len(data) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _mark_limits(panel: _Axes, errors: Sequence[float]) -> None:
    """Draw the mean error and, from three cases on, the limits of agreement, each with its number."""
    mean = float(np.mean(errors))
    lines = [(mean, "mean", "-")]
    if len(errors) > 2:
        reach = _LIMITS_DEVIATIONS * float(np.std(errors, ddof=1))
        lines += [(mean + reach, "+1.96 SD", "--"), (mean - reach, "\N{MINUS SIGN}1.96 SD", "--")]
    panel.axhline(0, color="0.6", linewidth=0.8)
    for height, name, style in lines:
        panel.axhline(height, color="0.25", linewidth=1.2, linestyle=style)
        panel.annotate(
            f"{name}: {height:+.1f} ml".replace("-", "\N{MINUS SIGN}"),
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.75},
        )
    panel.margins(y=0.15)

"""The figures of a report: Dice over clicks and per model, volumes against the truth, and pictures of cases."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clickvol.evaluation.protocol import NO_CLICK
from clickvol.evaluation.records import main_placement
from clickvol.files.atomic import atomic_path
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.pictures import Picture, write_picture
from clickvol.io.volume import Volume
from clickvol.preprocessing.slices2d import unit_pixels
from clickvol.previews.preview import draw_preview
from clickvol.previews.preview2d import draw_image_preview
from clickvol.prompts.click import Click
from clickvol.prompts.image_prompts import ImagePrompts, prompts_on_picture
from clickvol.report.summary import Summary, case_means

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


def write_figures(table: pd.DataFrame, summary: Summary, folder: Path) -> dict[str, Path]:
    """Draw the figures of a report into a folder; return the PNG files by caption."""
    placement = main_placement(table)
    scores, cases = (
        one[(one["num_clicks"] == 0) | (one["placement"] == placement)]
        for one in (summary.scores, case_means(table))
    )
    models = list(dict.fromkeys(scores["model"]))
    figures = {
        "Dice by number of clicks": ("click_curve.png", _click_curve(scores, models)),
        "Dice of the cases": ("box_plot.png", _box_plot(cases, models)),
    }
    if "mask_ml" in cases:
        figures["Volume of the mask against the truth"] = (
            "volume_bland_altman.png",
            _bland_altman(cases, models),
        )
    for name, figure in figures.values():
        with atomic_path(folder / name, ".png") as temporary:
            # Without the version that drew it, the same records give the same bytes.
            figure.savefig(temporary, dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return {caption: folder / name for caption, (name, _) in figures.items()}


def _panels(
    titles: Sequence[str],
    *,
    size_inches: tuple[float, float] = _PANEL_INCHES,
    least_height: float = 0.0,
    legend: Sequence[str] = (),
) -> tuple[Any, list[_Axes]]:
    """Return a figure with one panel per title, up to three in a row, and room for a legend at the right."""
    columns = min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    width, height = size_inches
    legend_width = 0.7 + 0.085 * max(map(len, legend)) if legend else 0.0
    # A Figure of its own draws with Agg: no window and no state that others share.
    figure: Any = Figure(
        figsize=(width * columns + legend_width, max(height * rows, least_height)), layout="constrained"
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


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _count(cases: int, groups: int) -> str:
    return f"n = {_plural(cases, 'case')}, {_plural(groups, 'patient')}"


def _count_cases(cases: pd.DataFrame) -> str:
    # A patient of one name in two data sets, such as CT and MR, is one patient.
    return _count(len(cases[["data", "case_id"]].drop_duplicates()), cases["group"].nunique())


def _label(model: str, num_clicks: int) -> str:
    return f"{model}, {_plural(num_clicks, 'click') if num_clicks else 'no click'}"


def _click_curve(scores: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Mean Dice over clicks with its interval; a model without clicks is a level, its interval at the right."""
    most_clicks = scores.groupby("model", observed=True)["num_clicks"].max()
    labels = {model: model if most_clicks[model] else f"{model} (no click)" for model in models}
    by_data = dict(list(scores.groupby("data", observed=True)))
    titles = [f"{name}\n{_count(one['cases'].max(), one['groups'].max())}" for name, one in by_data.items()]
    figure, panels = _panels(titles, least_height=0.6 + 0.21 * len(models), legend=list(labels.values()))
    handles: dict[str, Any] = {}
    for panel, here in zip(panels, by_data.values(), strict=True):
        clicks = sorted({*here["num_clicks"]} - {0}) or [0]
        step = 0.025 * max(clicks[-1] - clicks[0], 1)
        for rank, model in enumerate(models):
            means = here[here["model"] == model]
            if len(means):
                handles[model] = _curve(panel, means, clicks, _style(rank), clicks[-1] + step * (rank + 1))
        panel.set_xticks(clicks)
        panel.set_xlabel("clicks")
        panel.set_ylabel("mean Dice, 95 % interval")
        panel.set_ylim(0, 1)
    words = [labels[model] for model in handles]
    figure.legend(handles.values(), words, loc="outside right upper", frameon=False, fontsize=9)
    return figure  # type: ignore[no-any-return]


def _curve(
    panel: _Axes, means: pd.DataFrame, clicks: Sequence[int], style: dict[str, Any], bar_at: float
) -> Any:  # noqa: ANN401  # matplotlib's
    """Draw one model: a band around a curve, or a level or point with a bar at a place on the x axis."""
    x, y = list(means["num_clicks"]), list(means["dice_mean"])
    known = means.dropna(subset="dice_low")
    if len(means) > 1:
        band = (known["num_clicks"], known["dice_low"], known["dice_high"])
        panel.fill_between(*band, color=style["color"], alpha=0.13, linewidth=0)
    else:
        panel.vlines(
            [bar_at] * len(known), known["dice_low"], known["dice_high"], color=style["color"], linewidth=1.8
        )
        if x == [0]:  # as wide as the panel
            x, y, style = [clicks[0], clicks[-1]], y * 2, style | {"marker": None}
    (line,) = panel.plot(x, y, markersize=5, linewidth=1.8, **style)
    return line


def _box_plot(cases: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Dice of every case, mean over its users: quartiles, and every case as a point."""
    ends = {model: cases.loc[cases["model"] == model, "num_clicks"].agg(["min", "max"]) for model in models}
    rows = [(model, int(clicks)) for model in models for clicks in dict.fromkeys(ends[model])]
    by_data = dict(list(cases.groupby("data", observed=True)))
    titles = [f"{name}\n{_count_cases(one)}" for name, one in by_data.items()]
    figure, panels = _panels(titles, size_inches=(5.6, 1.3 + 0.34 * len(rows)))
    for panel, here in zip(panels, by_data.values(), strict=True):
        for place, (model, clicks) in enumerate(rows):
            values = here.loc[(here["model"] == model) & (here["num_clicks"] == clicks), "dice"].to_numpy()
            if not len(values):
                continue
            colour = _style(models.index(model))["color"]
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
        panel.set_yticks(range(len(rows)), [_label(*row) for row in rows], fontsize=9)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel("Dice of a case, mean over users")
    return figure  # type: ignore[no-any-return]


def _bland_altman(cases: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Per model after its last click: volume error over mean volume, with mean and limits of agreement."""
    last = cases[cases["num_clicks"] == cases.groupby("model", observed=True)["num_clicks"].transform("max")]
    by_model = {model: last[last["model"] == model] for model in models}
    data = list(dict.fromkeys(last["data"]))
    titles = [f"{_label(m, one['num_clicks'].iloc[0])}\n{_count_cases(one)}" for m, one in by_model.items()]
    figure, panels = _panels(titles, legend=data if len(data) > 1 else ())
    for panel, own in zip(panels, by_model.values(), strict=True):
        means, errors = (own["mask_ml"] + own["truth_ml"]) / 2, own["mask_ml"] - own["truth_ml"]
        for number, name in enumerate(data):
            here = own["data"] == name
            panel.plot(
                means[here],
                errors[here],
                _MARKERS[number % len(_MARKERS)],
                color=_COLOURS[number % len(_COLOURS)],
                markersize=5,
                alpha=0.8,
                zorder=4,  # in front of the numbers
                label=name,
            )
        _mark_limits(panel, errors)
        if means.min() > 0 and means.max() > _WIDE_RANGE * means.min():
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("mean of mask and true volume (ml)")
        panel.set_ylabel("mask minus true volume (ml)")
    if len(data) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return figure  # type: ignore[no-any-return]


def _mark_limits(panel: _Axes, errors: pd.Series) -> None:
    """Draw the mean error and, from three cases on, the limits of agreement, each with its number."""
    mean = errors.mean()
    lines = [(mean, "mean", "-")]
    if len(errors) > 2:
        reach = _LIMITS_DEVIATIONS * errors.std()
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


def choose_cases(table: pd.DataFrame, *, model: str, data: str) -> dict[str, pd.Series]:
    """Return which cases to show of a model on a data set, by their Dice.

    Among the rows of its first user, with the protocol's first click and the largest number of clicks.
    Of equal scores the first by case name; the median of an even number is the lower one.

    Returns:
        Rows as "worst", "median" and "best", in this order; fewer where there are fewer than three cases (two:
        worst and best, one: the median), none without rows.
    """
    own = table[(table["model"] == model) & (table["data"] == data)]
    own = own[own["placement"] == (main_placement(own) or NO_CLICK)]
    last = own[(own["seed"] == own["seed"].min()) & (own["num_clicks"] == own["num_clicks"].max())]
    ranked = last.sort_values(["dice", "case_id"])
    ranks = {0: (), 1: ("median",), 2: ("worst", "best")}.get(len(ranked), ("worst", "median", "best"))
    place = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": -1}
    return {rank: ranked.iloc[place[rank]] for rank in ranks}


def case_picture(
    volume: Volume,
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    path: Path,
    title: str,
    clicks: Sequence[Click] = (),
) -> None:
    """Write a PNG of three planes through the tumour, with the outlines of truth and prediction, (D, H, W).

    The planes are those in which the truth has its largest area, so they do not depend on what a model or a
    user did; without a truth, those in which the prediction has. Clicks are shown where they are within 5 mm of
    a plane; ClickError for one that is not in the scan.
    """
    picture = draw_preview(
        volume,
        (prediction != 0).astype(np.uint8),
        clicks,
        caption=title,
        truth=truth,
        through=_largest_slices(truth if truth.any() else prediction),
    )
    with atomic_path(path, ".png") as temporary:
        picture.save(temporary)


def drawn_picture(
    volume: Picture,
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    path: Path,
    clicks: Sequence[Click] = (),
) -> None:
    """Write a picture twice, with the clicks and the outline (H, W) of a prediction, and with the truth."""
    prompts = prompts_on_picture(clicks, volume.grid)
    pixels = unit_pixels(volume.pixels)
    sides = [draw_image_preview(pixels, prediction, prompts), draw_image_preview(pixels, truth, ImagePrompts())]
    write_picture(np.hstack([np.asarray(side) for side in sides]), path)


def _largest_slices(mask: NDArray[np.generic]) -> VoxelPoint:
    """Return where the slices with the most voxels of a mask meet; of equal ones the middle one."""
    middle = []
    for axis in range(3):
        areas = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))
        largest = np.flatnonzero(areas == areas.max())
        middle.append(float(largest[len(largest) // 2]))
    return VoxelPoint(*middle)

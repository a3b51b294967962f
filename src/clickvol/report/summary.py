"""The numbers of a report from the table of an evaluation: means, intervals, click curves, paired tests."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clickvol.errors import ConfigError
from clickvol.evaluation.records import measures_of, nsd_tolerances_of
from clickvol.files.atomic import write_text
from clickvol.metrics.click_curve import DICE_TO_REACH, click_curve_area, clicks_to_reach
from clickvol.metrics.scores import NSD_TOLERANCES_MM, nsd_name
from clickvol.report.statistics import RESAMPLES, bootstrap_interval, holm, paired_tests

SERIES = ["data", "model", "placement", "num_clicks"]
"""What the rows of one mean have in common."""

_COMPARED_NUMBERS = ("difference", "low", "high", "t_p", "wilcoxon_p", "t_p_holm", "wilcoxon_p_holm")

Interval = Callable[[Any, Any], tuple[float, float] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The numbers of a report; NaN where there is none.

    Attributes:
        reference: model that the others are compared with; None for no comparison.
        nsd_tolerance_mm: of the surface Dice that is compared.
        resamples, seed: of the bootstrap.
        scores: one row per model, data set, first click and number of clicks: how many cases, groups
            (patients), records and failures, which count as an empty mask; and for each measure NAME_n (records
            that have it), NAME_mean, NAME_median, and NAME_low and NAME_high, the 95 % bootstrap interval of
            the mean over patients, missing with fewer than two of them.
        curves: one row per model, data set and first click: `num_clicks`, a list of those that were scored;
            `runs` that have all of them; `dice_area_...`, the area under Dice over clicks divided by their
            range, per run; `reached`, the share of runs that reach `metrics.click_curve.DICE_TO_REACH`;
            `clicks_to_reach`, their mean number of clicks.
        comparisons: one row per model, data set, first click, number of clicks and measure: `groups`, patients
            that both have; `unpaired_cases`, left out; `difference` to the reference, the mean over patients,
            with interval `low` and `high`; p values `t_p`, `wilcoxon_p` (see `statistics.PairedTests`), and
            `..._holm`, corrected for the models of the same data, placement, number of clicks and measure.
    """

    reference: str | None
    nsd_tolerance_mm: float
    resamples: int
    seed: int
    scores: pd.DataFrame
    curves: pd.DataFrame
    comparisons: pd.DataFrame

    def write_json(self, path: Path) -> None:
        """Write all of it; null where there is no number; OutputError when the file cannot be written."""
        content = {
            "reference": self.reference,
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "dice_to_reach": DICE_TO_REACH,
            "resamples": self.resamples,
            "seed": self.seed,
            "scores": _plain_rows(self.scores),
            "curves": _plain_rows(self.curves),
            "comparisons": _plain_rows(self.comparisons),
        }
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def summarise(
    table: pd.DataFrame,
    *,
    reference: str | None = None,
    nsd_tolerance_mm: float = NSD_TOLERANCES_MM[-1],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Make the tables of a report of `evaluation.records.score_table`.

    The reference is compared with in Dice and this surface Dice, for pictures in Dice and IoU. ConfigError for
    a reference that is no model, or a tolerance that is not recorded.
    """
    models = table["model"].cat.categories
    if reference is not None and reference not in models:
        raise ConfigError(
            f"the reference {reference!r} was not evaluated; choose one of {', '.join(sorted(models))}"
        )
    tolerances = nsd_tolerances_of(table)
    if tolerances and nsd_tolerance_mm not in tolerances:
        known = ", ".join(f"{t:g}" for t in tolerances)
        raise ConfigError(f"the tolerance {nsd_tolerance_mm:g} mm is not recorded; choose one of {known}")
    interval = partial(bootstrap_interval, resamples=resamples, seed=seed)
    names = [measure.name for measure in measures_of(table)]
    compared = ["dice", nsd_name(nsd_tolerance_mm) if tolerances else "iou"]
    comparisons = _comparisons(table, reference, compared, interval)
    return Summary(
        reference=reference,
        nsd_tolerance_mm=nsd_tolerance_mm,
        resamples=resamples,
        seed=seed,
        scores=_score_rows(table, names, interval),
        curves=_curve_rows(table, interval),
        comparisons=comparisons,
    )


def case_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the users of each scan: one row per model, scan, first click and number of clicks.

    A mean leaves out users without the number; `records` and `failures` count users.
    """
    means = {measure.name: (measure.name, "mean") for measure in measures_of(table)}
    volumes = {"truth_ml": ("truth_ml", "first"), "mask_ml": ("mask_ml", "mean")}
    means |= {name: how for name, how in volumes.items() if name in table}  # pictures have none
    grouped = table.groupby([*SERIES[:3], "case_id", "num_clicks"], observed=True)
    rows = grouped.agg(
        group=("group", "first"),
        modality=("modality", "first"),
        records=("seed", "size"),
        failures=("failure", "count"),
        **means,
    ).reset_index()
    front = [*SERIES[:3], "case_id", "group", "modality", "num_clicks"]
    return rows[[*front, *(name for name in rows if name not in front)]]


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object)
    rows: list[dict[str, Any]] = plain.where(table.notna(), None).to_dict("records")
    return rows


def _score_rows(table: pd.DataFrame, names: list[str], interval: Interval) -> pd.DataFrame:
    counts = table.groupby(SERIES, observed=True)
    rows = counts.agg(
        cases=("case_id", "nunique"),
        groups=("group", "nunique"),
        records=("seed", "size"),
        failures=("failure", "count"),
    )
    statistics = [
        {
            f"{name}_{what}": number
            for name in names
            for what, number in _statistic(one[name], one["group"], interval).items()
        }
        for _, one in counts
    ]
    rows = pd.concat([rows, pd.DataFrame(statistics, index=rows.index)], axis=1).reset_index()
    return rows[["model", "data", *(name for name in rows if name not in ("model", "data"))]]


def _statistic(values: pd.Series, groups: pd.Series, interval: Interval) -> dict[str, float]:
    """Return number, mean, median and interval of the values that are not missing."""
    known = values.dropna()
    low, high = interval(known, groups[known.index]) or (np.nan, np.nan)
    return {"n": len(known), "mean": known.mean(), "median": known.median(), "low": low, "high": high}


def _curve_rows(table: pd.DataFrame, interval: Interval) -> pd.DataFrame:
    rows = []
    for (data, model, placement), one in table.groupby(SERIES[:3], observed=True):
        curves = one.pivot(index=["case_id", "seed", "group"], columns="num_clicks", values="dice").dropna()
        groups = curves.index.get_level_values("group").to_series(index=curves.index)
        runs = curves.to_dict("index")
        area = pd.Series({run: click_curve_area(curve) for run, curve in runs.items()}, dtype=float)
        first = pd.Series([clicks_to_reach(curve) for curve in runs.values()], dtype=float)
        statistic = _statistic(area, groups, interval)
        rows.append(
            {
                "model": model,
                "data": data,
                "placement": placement,
                "num_clicks": curves.columns.tolist(),
                "runs": len(curves),
                **{f"dice_area_{what}": number for what, number in statistic.items()},
                "reached": first.notna().mean() if len(curves) else 0.0,
                "clicks_to_reach": first.mean(),
            }
        )
    return pd.DataFrame(rows).astype({"data": table["data"].dtype})


def _comparisons(
    table: pd.DataFrame, reference: str | None, names: list[str], interval: Interval
) -> pd.DataFrame:
    """Compare every other model with the reference wherever both were scored."""
    rows = [] if reference is None else list(_compared_rows(table, reference, names, interval))
    kinds = {"data": table["data"].dtype} | dict.fromkeys(_COMPARED_NUMBERS, float)
    return pd.DataFrame(rows).astype(kinds) if rows else pd.DataFrame()


def _compared_rows(
    table: pd.DataFrame, reference: str, names: list[str], interval: Interval
) -> Iterator[dict[str, Any]]:
    series = dict(list(table.groupby(SERIES, observed=True)))
    unclicked = {(model, data): one for (data, model, _, clicks), one in series.items() if clicks == 0}
    models = [model for model in dict.fromkeys(key[1] for key in series) if model != reference]
    for data, placement, clicks in dict.fromkeys((key[0], *key[2:]) for key in series):
        pairs = {}
        for model in models:
            keys = [(data, name, placement, clicks) for name in (model, reference)]
            # A model without clicks is compared as it is with every number of clicks of the other.
            pair = [series.get(key, unclicked.get((key[1], data))) for key in keys]
            if any(key in series for key in keys) and all(one is not None for one in pair):
                pairs[model] = pair
        cell = {"data": data, "placement": placement, "num_clicks": clicks}
        for name in names:
            family = [
                cell
                | {"measure": name, "model": model, "reference": reference}
                | _compare(name, interval, *pair)
                for model, pair in pairs.items()
            ]
            corrected = [holm([row[p] for row in family]) for p in ("t_p", "wilcoxon_p")]
            for row, t_p, wilcoxon_p in zip(family, *corrected, strict=True):
                yield row | {"t_p_holm": t_p, "wilcoxon_p_holm": wilcoxon_p}


def _compare(name: str, interval: Interval, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Compare the means per patient, of the cases that both have."""
    known = [one.dropna(subset=name) for one in (ours, theirs)]
    common = set(known[0]["case_id"]) & set(known[1]["case_id"])
    every = {*ours["case_id"], *theirs["case_id"]}
    means = [one[one["case_id"].isin(common)].groupby("group")[name].mean() for one in known]
    differences = (means[0] - means[1]).dropna().to_numpy()
    tests = paired_tests(differences)
    low, high = interval(differences, [str(number) for number in range(len(differences))]) or (None, None)
    return {
        "groups": tests.pairs,
        "unpaired_cases": len(every - common),
        "difference": differences.mean() if tests.pairs else None,
        "low": low,
        "high": high,
        "t_p": tests.t_p,
        "wilcoxon_p": tests.wilcoxon_p,
    }

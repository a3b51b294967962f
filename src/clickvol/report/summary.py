"""Many records become one: means with intervals, click curves, and tests against a reference."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clickvol.errors import ConfigError
from clickvol.evaluation.measures import DICE, Measure, measures_of, surface_dice, tolerances_of
from clickvol.evaluation.records import NSD_TOLERANCES_MM, ClickScore
from clickvol.metrics.clicks import DICE_TO_REACH, click_curve_area, clicks_to_reach
from clickvol.report.comparison import Comparison, compare_with_reference
from clickvol.report.series import Series, ordered, series_of
from clickvol.report.statistics import RESAMPLES, bootstrap_interval


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Statistic(_Frozen):
    """One number over many records.

    Attributes:
        n: records that have the number.
        mean, median: None where none has.
        low, high: 95 % bootstrap interval of the mean over patients; None with fewer than two patients.
    """

    n: int
    mean: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None


class ScoreRow(_Frozen):
    """One model on one data set after one number of clicks.

    Attributes:
        model, data, placement, num_clicks: of the records.
        cases, groups, records: how many scans, patients and records.
        failures: records without an answer; they count as an empty mask.
        statistics: by name of the measure, see `evaluation.measures`.
    """

    model: str
    data: str
    placement: str
    num_clicks: int
    cases: int
    groups: int
    records: int
    failures: int
    statistics: dict[str, Statistic]


class CurveRow(_Frozen):
    """What the clicks on one data set were worth to one model.

    Attributes:
        model, data, placement: of the records.
        num_clicks: numbers of clicks that were scored.
        runs: runs that have a record for each of them; others are left out.
        dice_area: area under Dice over clicks divided by their range, per run.
        reached: share of the runs that reach the Dice `Summary.dice_to_reach`.
        clicks_to_reach: mean number of clicks among those; None where none did.
    """

    model: str
    data: str
    placement: str
    num_clicks: tuple[int, ...]
    runs: int
    dice_area: Statistic
    reached: Annotated[float, Field(ge=0, le=1)]
    clicks_to_reach: float | None


class Summary(_Frozen):
    """The tables of an evaluation.

    Attributes:
        reference: model that others are compared with; None for no comparison.
        nsd_tolerances_mm: of the surface Dice that the rows have.
        nsd_tolerance_mm: of the surface Dice that is compared.
        dice_to_reach: what "clicks to reach" asks for.
        resamples, seed: of the bootstrap.
        rows, curves, comparisons: see their types.
    """

    reference: str | None
    nsd_tolerances_mm: tuple[float, ...]
    nsd_tolerance_mm: float
    dice_to_reach: float
    resamples: int
    seed: int
    rows: tuple[ScoreRow, ...]
    curves: tuple[CurveRow, ...]
    comparisons: tuple[Comparison, ...]


def summarise(
    scores: Iterable[ClickScore],
    *,
    reference: str | None = None,
    nsd_tolerance_mm: float = NSD_TOLERANCES_MM[-1],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Make the tables of an evaluation.

    Args:
        scores: all records, in any order; models and data sets keep the order of their first record.
        reference: the model to compare with, in Dice and surface Dice.
        nsd_tolerance_mm: of the surface Dice to compare.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: without records, for a record that is there twice, a reference that is no model, a
            tolerance that is not recorded, or records with different tolerances.
    """
    records = ordered(scores)
    models = {score.model for score in records}
    if reference is not None and reference not in models:
        raise ConfigError(
            f"the reference {reference!r} was not evaluated; choose one of {', '.join(sorted(models))}"
        )
    tolerances = tolerances_of(records)
    if nsd_tolerance_mm not in tolerances:
        known = ", ".join(f"{t:g}" for t in tolerances)
        raise ConfigError(f"the tolerance {nsd_tolerance_mm:g} mm is not recorded; choose one of {known}")
    series = series_of(records)
    measures = measures_of(tolerances)
    compared = (DICE, surface_dice(nsd_tolerance_mm))
    return Summary(
        reference=reference,
        nsd_tolerances_mm=tolerances,
        nsd_tolerance_mm=nsd_tolerance_mm,
        dice_to_reach=DICE_TO_REACH,
        resamples=resamples,
        seed=seed,
        rows=tuple(_score_row(one, found, measures, resamples, seed) for one, found in series.items()),
        curves=tuple(_curve_rows(series, resamples, seed)),
        comparisons=()
        if reference is None
        else compare_with_reference(series, reference, compared, resamples=resamples, seed=seed),
    )


def _score_row(
    one: Series,
    records: list[ClickScore],
    measures: Sequence[Measure],
    resamples: int,
    seed: int,
) -> ScoreRow:
    return ScoreRow(
        model=one.model,
        data=one.data,
        placement=one.placement,
        num_clicks=one.num_clicks,
        cases=len({r.case_id for r in records}),
        groups=len({r.group for r in records}),
        records=len(records),
        failures=sum(r.failure is not None for r in records),
        statistics={m.name: _of_measure(m, records, resamples, seed) for m in measures},
    )


def _of_measure(what: Measure, records: list[ClickScore], resamples: int, seed: int) -> Statistic:
    known = [(value, r.group) for r in records if (value := what.read(r)) is not None]
    return _statistic([value for value, _ in known], [group for _, group in known], resamples, seed)


def _statistic(values: Sequence[float], groups: Sequence[str], resamples: int, seed: int) -> Statistic:
    if not values:
        return Statistic(n=0)
    low, high = bootstrap_interval(values, groups, resamples=resamples, seed=seed) or (None, None)
    return Statistic(
        n=len(values),
        mean=float(np.mean(values)),
        median=float(np.median(values)),
        low=low,
        high=high,
    )


def _curve_rows(series: dict[Series, list[ClickScore]], resamples: int, seed: int) -> Iterable[CurveRow]:
    families: dict[tuple[str, str, str], list[ClickScore]] = {}
    for one, records in series.items():
        families.setdefault((one.model, one.data, one.placement), []).extend(records)
    for (model, data, placement), records in families.items():
        clicks = sorted({r.num_clicks for r in records})
        runs: dict[tuple[str, int], list[ClickScore]] = {}
        for r in records:
            runs.setdefault((r.case_id, r.seed), []).append(r)
        whole = [run for run in runs.values() if len(run) == len(clicks)]
        curves = [{r.num_clicks: r.dice for r in run} for run in whole]
        reached = [n for curve in curves if (n := clicks_to_reach(curve)) is not None]
        yield CurveRow(
            model=model,
            data=data,
            placement=placement,
            num_clicks=tuple(clicks),
            runs=len(whole),
            dice_area=_statistic(
                [click_curve_area(curve) for curve in curves],
                [run[0].group for run in whole],
                resamples,
                seed,
            ),
            reached=len(reached) / len(whole) if whole else 0.0,
            clicks_to_reach=float(np.mean(reached)) if reached else None,
        )

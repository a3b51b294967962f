"""One model against a reference: the difference on the same patients, and how likely it is by chance."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from clickvol.evaluation.measures import Measure
from clickvol.evaluation.records import ClickScore
from clickvol.report.series import Series
from clickvol.report.statistics import (
    bootstrap_interval,
    group_means,
    holm,
    paired_differences,
    paired_tests,
)


class Comparison(BaseModel):
    """A model minus the reference, in one measure.

    Attributes:
        data, placement, num_clicks: which records. A model without clicks is compared as it is with every
            number of clicks of the other.
        measure: name, see `evaluation.measures`.
        model, reference: the two.
        groups: patients that both have.
        unpaired_cases: cases that only one of them has; left out.
        difference: mean over patients of their mean differences; None without a pair.
        low, high: 95 % bootstrap interval over patients; None with fewer than two.
        t_p, wilcoxon_p: see `statistics.PairedTests`.
        t_p_holm, wilcoxon_p_holm: corrected for the models of the same data, placement, number of clicks
            and measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    placement: str
    num_clicks: int
    measure: str
    model: str
    reference: str
    groups: int
    unpaired_cases: int
    difference: float | None
    low: float | None
    high: float | None
    t_p: float | None
    wilcoxon_p: float | None
    t_p_holm: float | None = None
    wilcoxon_p_holm: float | None = None


def compare_with_reference(
    series: Mapping[Series, list[ClickScore]],
    reference: str,
    measures: Sequence[Measure],
    *,
    resamples: int,
    seed: int,
) -> tuple[Comparison, ...]:
    """Compare every other model with the reference wherever both were scored.

    Args:
        series: records by table row.
        reference: name of a model.
        measures: what to compare; a case without the number counts as unpaired.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    models = [m for m in dict.fromkeys(s.model for s in series) if m != reference]
    cells = dict.fromkeys((s.data, s.placement, s.num_clicks) for s in series)
    found: list[Comparison] = []
    for data, placement, num_clicks in cells:
        for what in measures:
            family = []
            for model in models:
                pair = _records(series, (model, reference), data, placement, num_clicks)
                if pair is not None:
                    cell = Series(data=data, model=model, placement=placement, num_clicks=num_clicks)
                    family.append(_compare(cell, reference, what, pair, resamples, seed))
            found.extend(_corrected(family))
    return tuple(found)


def _records(
    series: Mapping[Series, list[ClickScore]],
    models: tuple[str, str],
    data: str,
    placement: str,
    num_clicks: int,
) -> tuple[list[ClickScore], list[ClickScore]] | None:
    """Return what two models have for a cell, or have without clicks; None unless one has the cell itself."""
    pair, clicked = [], False
    for model in models:
        exact = Series(data=data, model=model, placement=placement, num_clicks=num_clicks)
        records = series.get(exact)
        clicked = clicked or records is not None
        if records is None:
            records = next(
                (r for s, r in series.items() if (s.model, s.data, s.num_clicks) == (model, data, 0)),
                None,
            )
        if records is None:
            return None
        pair.append(records)
    return (pair[0], pair[1]) if clicked else None


def _compare(
    cell: Series,
    reference: str,
    what: Measure,
    pair: tuple[list[ClickScore], list[ClickScore]],
    resamples: int,
    seed: int,
) -> Comparison:
    ours, theirs = ([(r, value) for r in records if (value := what.read(r)) is not None] for records in pair)
    common = {r.case_id for r, _ in ours} & {r.case_id for r, _ in theirs}
    every = {r.case_id for records in pair for r in records}
    means = [
        group_means(
            [value for r, value in known if r.case_id in common],
            [r.group for r, _ in known if r.case_id in common],
        )
        for known in (ours, theirs)
    ]
    differences = paired_differences(means[0], means[1])
    tests = paired_tests(differences)
    groups = [str(number) for number in range(len(differences))]
    low, high = bootstrap_interval(differences, groups, resamples=resamples, seed=seed) or (
        None,
        None,
    )
    return Comparison(
        data=cell.data,
        placement=cell.placement,
        num_clicks=cell.num_clicks,
        measure=what.name,
        model=cell.model,
        reference=reference,
        groups=tests.pairs,
        unpaired_cases=len(every - common),
        difference=float(np.mean(differences)) if tests.pairs else None,
        low=low,
        high=high,
        t_p=tests.t_p,
        wilcoxon_p=tests.wilcoxon_p,
    )


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    t_p = holm([c.t_p for c in family])
    wilcoxon_p = holm([c.wilcoxon_p for c in family])
    return [
        c.model_copy(update={"t_p_holm": t, "wilcoxon_p_holm": w})
        for c, t, w in zip(family, t_p, wilcoxon_p, strict=True)
    ]

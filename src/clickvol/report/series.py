"""Records in an order that does not depend on which was finished first, and by what a table row holds."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from clickvol.errors import ConfigError
from clickvol.evaluation.records import ClickScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What the records of one table row have in common."""

    data: str
    model: str
    placement: str
    num_clicks: int


def ordered(scores: Iterable[ClickScore]) -> list[ClickScore]:
    """Sort records: data sets, models and placements by their first record, cases, seeds and clicks by value.

    Raises:
        ConfigError: without records, or for a record that is there twice.
    """
    records = list(scores)
    if not records:
        raise ConfigError("there is no score to report; evaluate at least one model on one case")
    data = _ranks(r.data for r in records)
    models = _ranks(r.model for r in records)
    placements = _ranks(r.placement for r in records)

    def key(r: ClickScore) -> tuple[int, int, int, str, int, int]:
        ranks = data[r.data], models[r.model], placements[r.placement]
        return (*ranks, r.case_id, r.seed, r.num_clicks)

    records.sort(key=key)
    for one, other in pairwise(records):
        if key(one) == key(other):
            raise ConfigError(
                f"{one.model} on {one.data} {one.case_id} (seed {one.seed}, {one.placement}, "
                f"{one.num_clicks} clicks) was scored twice; remove one of the records"
            )
    return records


def series_of(records: Iterable[ClickScore]) -> dict[Series, list[ClickScore]]:
    """Group sorted records by table row; rows of one model and placement come by number of clicks."""
    found: dict[Series, list[ClickScore]] = {}
    for r in records:
        series = Series(data=r.data, model=r.model, placement=r.placement, num_clicks=r.num_clicks)
        found.setdefault(series, []).append(r)
    first = _ranks((s.data, s.model, s.placement) for s in found)
    rising = sorted(found, key=lambda s: (first[s.data, s.model, s.placement], s.num_clicks))
    return {series: found[series] for series in rising}


def main_placement(records: Iterable[ClickScore]) -> str | None:
    """Return the placement of the first record that was clicked; None where none was."""
    return next((r.placement for r in records if r.num_clicks > 0), None)


def _ranks(names: Iterable[Hashable]) -> dict[Hashable, int]:
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}

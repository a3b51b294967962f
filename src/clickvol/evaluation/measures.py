"""What is read from a record for a table: a number, its name, and how it is printed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from clickvol.errors import ConfigError
from clickvol.evaluation.records import ClickScore

MISSING = "\N{EN DASH}"
"""What stands where there is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A column.

    Attributes:
        name: in files.
        title: in tables and on axes, with the unit.
        digits: behind the point.
        read: the number of one record; None where it has none.
        with_interval: its interval stands beside the mean; with all of them a row would not fit on a page.
    """

    name: str
    title: str
    digits: int
    read: Callable[[ClickScore], float | None]
    with_interval: bool = False


def nsd_name(tolerance_mm: float) -> str:
    """Return the name of the surface Dice at a tolerance."""
    return f"nsd_{tolerance_mm:g}mm"


def surface_dice(tolerance_mm: float) -> Measure:
    """Return the surface Dice at a tolerance, for records that have it."""
    return Measure(
        name=nsd_name(tolerance_mm),
        title=f"NSD {tolerance_mm:g} mm",
        digits=3,
        read=lambda score: score.nsd_at(tolerance_mm),
        with_interval=True,
    )


DICE = Measure(name="dice", title="Dice", digits=3, read=lambda score: score.dice, with_interval=True)


def measures_of(tolerances_mm: Sequence[float]) -> tuple[Measure, ...]:
    """Return all measures in the order of the columns, with the surface Dice at these tolerances."""
    return (
        DICE,
        Measure(name="iou", title="IoU", digits=3, read=lambda score: score.iou),
        *map(surface_dice, tolerances_mm),
        Measure(name="hd95_mm", title="HD95 (mm)", digits=1, read=lambda score: score.hd95_mm),
        Measure(name="assd_mm", title="ASSD (mm)", digits=2, read=lambda score: score.assd_mm),
        Measure(
            name="volume_error_ml",
            title="abs. volume error (ml)",
            digits=1,
            read=lambda score: abs(score.mask_ml - score.truth_ml),
        ),
        Measure(
            name="lesion_recall",
            title="lesion recall",
            digits=3,
            read=lambda score: score.lesion_recall,
        ),
        Measure(name="seconds", title="time (s)", digits=2, read=lambda score: score.seconds),
    )


def tolerances_of(scores: Iterable[ClickScore]) -> tuple[float, ...]:
    """Return the tolerances that all records have.

    Raises:
        ConfigError: when they differ, so that no column could hold them.
    """
    found = dict.fromkeys(score.nsd_tolerances_mm for score in scores)
    if len(found) > 1:
        words = " and at ".join(", ".join(f"{t:g}" for t in one) + " mm" for one in found)
        raise ConfigError(f"the records have the surface Dice at {words}; report those of one evaluation")
    return next(iter(found), ())

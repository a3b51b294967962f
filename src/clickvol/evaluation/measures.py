"""What is read from a record for a table: a number, its name, and how it is printed."""

from collections.abc import Callable
from dataclasses import dataclass

from clickvol.evaluation.records import NSD_TOLERANCES_MM, ClickScore

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
    """

    name: str
    title: str
    digits: int
    read: Callable[[ClickScore], float | None]


def _nsd(index: int, tolerance_mm: float) -> Measure:
    return Measure(
        name=nsd_name(tolerance_mm),
        title=f"NSD {tolerance_mm:g} mm",
        digits=3,
        read=lambda score: score.nsd[index],
    )


def nsd_name(tolerance_mm: float) -> str:
    """Return the name of the surface Dice at a tolerance."""
    return f"nsd_{tolerance_mm:g}mm"


DICE = Measure(name="dice", title="Dice", digits=3, read=lambda score: score.dice)

MEASURES: tuple[Measure, ...] = (
    DICE,
    Measure(name="iou", title="IoU", digits=3, read=lambda score: score.iou),
    *(_nsd(index, tolerance) for index, tolerance in enumerate(NSD_TOLERANCES_MM)),
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


def measure(name: str) -> Measure:
    """Return the measure of a name that a summary holds."""
    return next(m for m in MEASURES if m.name == name)

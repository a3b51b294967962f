"""What the users of each scan found on average: one row per model, scan and number of clicks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clickvol.evaluation.measures import DICE, measures_of, tolerances_of
from clickvol.evaluation.protocol import NO_CLICK
from clickvol.evaluation.records import ClickScore
from clickvol.report.series import main_placement
from clickvol.report.tables import Table, number

# Models whose scans stand on the page, the first ones. Chosen: as many as are shown in pictures; the others are
# in the file.
_SHOWN_MODELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """One model at one scan after one number of clicks.

    Attributes:
        data, model, placement, case_id, group, modality, num_clicks: of the records.
        records: number of users.
        failures: records without an answer; they count as an empty mask.
        truth_ml: volume of the label.
        means: over the users, by name of the measure; None where no record has the number.
    """

    data: str
    model: str
    placement: str
    case_id: str
    group: str
    modality: str
    num_clicks: int
    records: int
    failures: int
    truth_ml: float
    means: dict[str, float | None]

    def cells(self) -> dict[str, object]:
        """Return the columns of a file."""
        cells: dict[str, object] = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "means"
        }
        return cells | self.means


def case_rows(records: Sequence[ClickScore]) -> list[CaseRow]:
    """Return the rows of all records, which come as `series.ordered` returns them, in their order.

    Raises:
        ConfigError: for records with different tolerances of the surface Dice.
    """
    measures = measures_of(tolerances_of(records))
    found: dict[tuple[str, str, str, str, int], list[ClickScore]] = {}
    for r in records:
        key = (r.data, r.model, r.placement, r.case_id, r.num_clicks)
        found.setdefault(key, []).append(r)
    return [
        CaseRow(
            data=users[0].data,
            model=users[0].model,
            placement=users[0].placement,
            case_id=users[0].case_id,
            group=users[0].group,
            modality=users[0].modality,
            num_clicks=users[0].num_clicks,
            records=len(users),
            failures=sum(r.failure is not None for r in users),
            truth_ml=users[0].truth_ml,
            means={m.name: _mean(m.read(r) for r in users) for m in measures},
        )
        for users in found.values()
    ]


def case_tables(records: Sequence[ClickScore], rows: Iterable[CaseRow]) -> list[Table]:
    """Return one table per data set: Dice of every scan after every number of clicks.

    Args:
        records: all of them, as `series.ordered` returns them.
        rows: of these records.
    """
    placements = {main_placement(records), NO_CLICK}
    rows = [row for row in rows if row.placement in placements]
    models = list(dict.fromkeys(row.model for row in rows))[:_SHOWN_MODELS]
    tables = []
    for data in dict.fromkeys(row.data for row in rows):
        here = [row for row in rows if row.data == data and row.model in models]
        clicks = sorted({row.num_clicks for row in here})
        dice = {(r.model, r.case_id, r.num_clicks): r.means[DICE.name] for r in here}
        scans = {(r.model, r.case_id): r for r in here}
        tables.append(
            Table(
                caption=f"{data}: Dice of each scan, mean over users",
                header=(
                    *("model", "scan", "patient", "label (ml)"),
                    *("1 click" if n == 1 else f"{n} clicks" for n in clicks),
                ),
                rows=tuple(
                    (
                        *(model, case_id, row.group, number(row.truth_ml, 1)),
                        *(number(dice.get((model, case_id, n)), DICE.digits) for n in clicks),
                    )
                    for (model, case_id), row in scans.items()
                ),
            )
        )
    return tables


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

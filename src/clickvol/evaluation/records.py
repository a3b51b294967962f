"""The table of an evaluation: one row per model, scan, simulated user and number of clicks.

Columns: `model`, `data`, `case_id`, `seed` and `placement` name the run of one user on one scan with one model;
`num_clicks` is the number of clicks given so far, 0 without clicks. `group` is the patient, whose scans
statistics resample together; `modality` is the scan's. Then come the scores of `metrics.scores`, missing where
a mask has none; `seconds` from the click to the mask; and `failure`, one line on why there was no answer, whose
scores are those of an empty mask.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.metrics.scores import Measure, mask_measures, picture_measures

TABLE_NAME = "scores.parquet"
CSV_NAME = "scores.csv"

Row = dict[str, Any]
"""A row as plain values by column, None where a number is missing."""


class RunKey(NamedTuple):
    """Which run: one user with one model at one scan."""

    model: str
    data: str
    case_id: str
    seed: int
    placement: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "RunKey":
        """Return the run that a row is of; KeyError where it names none."""
        return cls(*(row[name] for name in cls._fields))


RUN_COLUMNS = RunKey._fields

# These come in the order of their first row, all others by value.
_RANKED = ("data", "model", "placement")


def score_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table whose order does not depend on which case was finished first.

    Data sets, models and placements are categories in the order of their first row; cases, seeds and numbers of
    clicks are sorted by value. ConfigError without rows, for a row that is there twice, or for rows with
    different measures.
    """
    table = pd.DataFrame(list(rows))
    if table.empty:
        raise ConfigError("there is no score to report; evaluate at least one model on one case")
    for name in _RANKED:
        table[name] = pd.Categorical(table[name], categories=table[name].unique(), ordered=True)
    table = table.sort_values([*_RANKED, "case_id", "seed", "num_clicks"], ignore_index=True)
    twice = table[table.duplicated([*RUN_COLUMNS, "num_clicks"])]
    if len(twice):
        one = twice.iloc[0]
        raise ConfigError(
            f"{one.model} on {one.data} {one.case_id} (seed {one.seed}, {one.placement}, "
            f"{one.num_clicks} clicks) was scored twice; remove one of the rows"
        )
    for name in (measure.name for measure in measures_of(table)):
        table[name] = table[name].astype(float)
        if name.startswith("nsd_") and table[name].isna().any():
            raise ConfigError(f"some rows have no {name}; report those of one evaluation")
    return table


def measures_of(table: pd.DataFrame) -> tuple[Measure, ...]:
    """Return the measures of a table in the order of their columns, time last."""
    seconds = Measure("seconds", "time (s)", 2, lambda _: None)
    masks = mask_measures(nsd_tolerances_of(table))
    names = {measure.name for measure in masks}
    known = (*masks, *(m for m in picture_measures() if m.name not in names), seconds)
    return tuple(measure for measure in known if measure.name in table)


def nsd_tolerances_of(table: pd.DataFrame) -> tuple[float, ...]:
    """Return the tolerances of the surface Dice of a table, in mm."""
    names = (name for name in table.columns if name.startswith("nsd_"))
    return tuple(sorted(float(name.removeprefix("nsd_").removesuffix("mm")) for name in names))


def write_table(table: pd.DataFrame, folder: Path) -> None:
    """Write scores.parquet and scores.csv; OutputError when a file cannot be written."""
    with atomic_path(folder / TABLE_NAME, ".parquet") as temporary:
        table.to_parquet(temporary, index=False)
    write_csv(table, folder / CSV_NAME)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; what is missing is an empty cell; OutputError when the file cannot be written."""
    with atomic_path(path, ".csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def main_placement(table: pd.DataFrame) -> str | None:
    """Return the first click of the protocol, not those of `--robustness`; None where nobody clicked."""
    clicked = table.loc[table["num_clicks"] > 0, "placement"]
    return None if clicked.empty else str(clicked.iloc[0])

"""What an evaluation leaves on disk while it runs, so that it can be stopped and go on.

`settings.json` says what is evaluated; `results.jsonl` has one `ClickScore` and `audit.jsonl` one click per
line. The lines of a run (one model, scan, seed and placement) are appended together, its audit first, so that a
killed evaluation leaves at most one incomplete run at the end, which is dropped when it goes on.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from clickvol.errors import ConfigError, OutputError
from clickvol.evaluation.records import ClickScore
from clickvol.files.atomic import atomic_path

RESULTS_NAME = "results.jsonl"
AUDIT_NAME = "audit.jsonl"
SETTINGS_NAME = "settings.json"


class RunKey(NamedTuple):
    """Which run: one user with one model at one scan."""

    model: str
    data: str
    case_id: str
    seed: int
    placement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickAudit:
    """One click, and what of the label was looked at to place it.

    Attributes:
        model, data, case_id, seed, placement: the run.
        click: its number, from 1.
        voxel_ijk: as the file is indexed.
        world_ras_mm: in the patient.
        foreground: inside the object, or beside it.
        drawn_from: in words.
        region_voxels: number of voxels that it was drawn from, or that the error has.
        label_sha256: of the label, uint8 in (D, H, W) order.
        oracle: what the contestant was shown of the label beside the clicks, in words; None for nothing.
    """

    model: str
    data: str
    case_id: str
    seed: int
    placement: str
    click: int
    voxel_ijk: tuple[int, int, int]
    world_ras_mm: tuple[float, float, float]
    foreground: bool
    drawn_from: str
    region_voxels: int
    label_sha256: str
    oracle: str | None = None


class ResultLog:
    """The files of one evaluation. Only one process may use a folder at a time; see `only_process_in`.

    Args:
        folder: there already.
        settings: plain values that decide the results; those of a folder never change.
        is_complete: tells whether a run's records are all there.

    Raises:
        ConfigError: when the folder holds an evaluation with other settings, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        is_complete: Callable[[RunKey, Collection[int]], bool],
    ) -> None:
        self._results = folder / RESULTS_NAME
        self._audit = folder / AUDIT_NAME
        _check_settings(folder / SETTINGS_NAME, settings)
        by_run: dict[RunKey, list[ClickScore]] = {}
        for record in _read_records(self._results):
            by_run.setdefault(_key(record), []).append(record)
        self._runs = {
            key: records
            for key, records in by_run.items()
            if is_complete(key, [record.num_clicks for record in records])
        }
        _rewrite(self._results, [_line(record) for record in self.records()])
        audits = [audit for audit in _read_audits(self._audit) if _audit_key(audit) in self._runs]
        _rewrite(self._audit, [json.dumps(audit) for audit in audits])

    def __contains__(self, key: RunKey) -> bool:
        return key in self._runs

    def records(self) -> list[ClickScore]:
        """Return all records, in the order in which they were written."""
        return [record for records in self._runs.values() for record in records]

    def append(self, key: RunKey, records: Sequence[ClickScore], clicks: Iterable[ClickAudit]) -> None:
        """Write a run; it is on disk when this returns.

        Raises:
            OutputError: when the file system refuses.
        """
        _append(self._audit, [json.dumps(asdict(click)) for click in clicks])
        _append(self._results, [_line(record) for record in records])
        self._runs[key] = list(records)


def read_scores(folder: Path) -> list[ClickScore]:
    """Return the records of an evaluation's folder; a cut-off last line is left out.

    Raises:
        ConfigError: when the folder holds none, or a damaged line.
    """
    path = folder / RESULTS_NAME
    if not path.is_file():
        raise ConfigError(f"{folder} holds no evaluation: {RESULTS_NAME} is missing; run clickvol evaluate")
    return _read_records(path)


def read_audit(folder: Path) -> list[ClickAudit]:
    """Return the clicks of an evaluation's folder.

    Raises:
        ConfigError: for a damaged line.
    """
    return [
        ClickAudit(**audit | {name: tuple(audit[name]) for name in ("voxel_ijk", "world_ras_mm")})
        for audit in _read_audits(folder / AUDIT_NAME)
    ]


def _key(record: ClickScore) -> RunKey:
    return RunKey(record.model, record.data, record.case_id, record.seed, record.placement)


def _audit_key(audit: dict[str, Any]) -> RunKey:
    return RunKey(*(audit[name] for name in RunKey._fields))


def _line(record: ClickScore) -> str:
    return record.model_dump_json()


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(settings))
    if not path.is_file():
        if (path.parent / RESULTS_NAME).is_file():
            raise ConfigError(f"{path} is missing beside {RESULTS_NAME}; choose another folder for the report")
        with atomic_path(path, ".json") as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged; choose another folder for the report") from error
    changed = sorted(k for k in {*wanted, *there} if wanted.get(k) != there.get(k))
    if changed:
        raise ConfigError(
            f"{path.parent} holds an evaluation with another {' and '.join(changed)}; choose another folder, "
            "or repeat the words it was begun with"
        )


def _whole_lines(path: Path) -> list[str]:
    """Return the lines that end; a killed writer may leave a last one that does not."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _read_records(path: Path) -> list[ClickScore]:
    records = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            records.append(ClickScore.model_validate_json(line))
        except ValidationError as error:
            raise ConfigError(
                f"{path}: line {number} is damaged; remove it, or choose another folder"
            ) from error
    return records


def _read_audits(path: Path) -> list[dict[str, Any]]:
    audits = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            audit = json.loads(line)
            _audit_key(audit)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: line {number} is damaged; remove it, or choose another folder"
            ) from error
        audits.append(audit)
    return audits


def _rewrite(path: Path, lines: list[str]) -> None:
    """Make a file hold these lines; it is left alone where it does."""
    text = "".join(f"{line}\n" for line in lines)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_path(path, ".jsonl") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _append(path: Path, lines: list[str]) -> None:
    """Append lines in one write, and wait until they are on disk."""
    try:
        with path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; make room and run the same command again"
        ) from error

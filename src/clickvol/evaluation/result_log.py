"""What an evaluation leaves on disk while it runs, so that it can be stopped, or killed, and go on.

`settings.json` says what is evaluated; `results.jsonl` has one row of the table (`evaluation.records`) and
`audit.jsonl` one click per line. The lines of a run are appended together, its audit first, so that a killed
evaluation leaves at most one incomplete run at the end, which is dropped when it goes on.

A line of the audit has the run (`RunKey`); the number of the `click`, from 1; its place `voxel_ijk`, as the
file is indexed, and `world_ras_mm`; `foreground`, inside the object or outside; what it was `drawn_from`, in
words, and the `region_voxels` that this or the error has; `label_sha256`, of the label as uint8 in (D, H, W)
order; and `oracle`, what the method was shown of the label apart from the clicks, null for nothing.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from clickvol.errors import ConfigError, OutputError
from clickvol.evaluation.records import Row, RunKey
from clickvol.files.atomic import write_text

RESULTS_NAME = "results.jsonl"
AUDIT_NAME = "audit.jsonl"
SETTINGS_NAME = "settings.json"


class ResultLog:
    """The files of one evaluation. Only one process may use a folder at a time; see `only_process_in`.

    Settings are plain values that decide the results; those of a folder never change. A run is complete when
    its rows, by their numbers of clicks, are all there. ConfigError when the folder holds an evaluation with
    other settings, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        is_complete: Callable[[RunKey, Collection[int | None]], bool],
    ) -> None:
        self._results, self._audit = folder / RESULTS_NAME, folder / AUDIT_NAME
        _check_settings(folder / SETTINGS_NAME, settings)
        by_run: dict[RunKey, list[Row]] = {}
        for row in _read_lines(self._results):
            if any(isinstance(value, list | dict) for value in row.values()):
                raise ConfigError(f"{self._results} is of another version of clickvol; choose another folder")
            by_run.setdefault(RunKey.of(row), []).append(row)
        self._runs = {
            key: rows
            for key, rows in by_run.items()
            if is_complete(key, [row.get("num_clicks") for row in rows])
        }
        _rewrite(self._results, self.rows())
        _rewrite(self._audit, [click for click in _read_lines(self._audit) if RunKey.of(click) in self._runs])

    def __contains__(self, key: RunKey) -> bool:
        return key in self._runs

    def rows(self) -> list[Row]:
        """Return all rows, in the order in which they were written."""
        return [row for rows in self._runs.values() for row in rows]

    def append(self, key: RunKey, rows: Sequence[Row], clicks: Iterable[Row]) -> None:
        """Write a run; it is on disk when this returns; OutputError when the file system refuses."""
        _append(self._audit, _text(clicks))
        _append(self._results, _text(rows))
        self._runs[key] = list(rows)


def read_audit(folder: Path) -> list[Row]:
    """Return the clicks of an evaluation's folder; ConfigError for a damaged line."""
    return _read_lines(folder / AUDIT_NAME)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    asked = json.loads(json.dumps(settings))
    if not path.is_file():
        if (path.parent / RESULTS_NAME).is_file():
            raise ConfigError(f"{path} is missing beside {RESULTS_NAME}; choose another folder for the report")
        write_text(path, json.dumps(asked, indent=1) + "\n")
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged; choose another folder for the report") from error
    changed = sorted(k for k in {*asked, *there} if asked.get(k) != there.get(k))
    if changed:
        raise ConfigError(
            f"{path.parent} holds an evaluation with another {' and '.join(changed)}; choose another folder, "
            "or repeat the words it was begun with"
        )


def _read_lines(path: Path) -> list[Row]:
    """Return the lines that end, each of a run; a killed writer may leave a last one that does not end."""
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            RunKey.of(line)
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{path}: line {number} is damaged; remove it, or choose another folder"
            ) from error
        lines.append(line)
    return lines


def _text(lines: Iterable[Row]) -> str:
    return "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)


def _rewrite(path: Path, lines: Iterable[Row]) -> None:
    """Make a file hold these lines; it is left alone where it does."""
    text = _text(lines)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    write_text(path, text)


def _append(path: Path, text: str) -> None:
    """Append lines in one write, and wait until they are on disk."""
    try:
        with path.open("ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; make room and run the same command again"
        ) from error

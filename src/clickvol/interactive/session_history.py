"""What is left of the steps of a log, those that undo and redo can still reach; and which logs a scan has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.interactive.session_log import (
    LOG_SUFFIX,
    ClickStep,
    LoggedStep,
    PlainStep,
    Step,
    read_log,
    scan_hash,
)
from clickvol.io.volume import Volume


@dataclass(frozen=True, slots=True)
class History:
    """The steps that made the states of a session, in order.

    Attributes:
        steps: without undo and redo, and without what a step after an undo has ended.
        position: number of steps that are not undone.
    """

    steps: tuple[Step, ...]
    position: int

    @property
    def num_clicks(self) -> int:
        """Clicks that stand: not undone, and not before a reset."""
        count = 0
        for step in self.steps[: self.position]:
            if isinstance(step, ClickStep):
                count += 1
            elif isinstance(step, PlainStep):
                count = 0
        return count


@dataclass(frozen=True, slots=True)
class LogSummary:
    """A log to choose from.

    Attributes:
        path: of the log.
        num_clicks: that stand: not undone, and not before a reset.
        last_time: of its last line, ISO 8601, UTC.
        model_id: that answered.
    """

    path: Path
    num_clicks: int
    last_time: str
    model_id: str


def history_of(logged: Sequence[LoggedStep]) -> History:
    """Follow undo and redo through the steps of a log; clicks that came to nothing are left out."""
    steps: list[Step] = []
    position = 0
    for one in logged:
        if not one.counts:
            continue
        if isinstance(one.step, PlainStep) and one.step.kind == "undo":
            position = max(position - 1, 0)
        elif isinstance(one.step, PlainStep) and one.step.kind == "redo":
            position = min(position + 1, len(steps))
        else:
            steps = [*steps[:position], one.step]
            position += 1
    return History(tuple(steps), position)


def find_logs(folder: Path, volume: Volume) -> list[LogSummary]:
    """Return the logs of a scan with clicks that stand, the newest first; damaged ones are left out."""
    scan_sha256 = scan_hash(volume)
    found = []
    for path in folder.glob(f"{scan_sha256[:16]}-*{LOG_SUFFIX}"):
        try:
            log = read_log(path)
        except ConfigError:
            continue
        num_clicks = history_of(log.steps).num_clicks
        if log.header.scan_sha256 == scan_sha256 and num_clicks:
            last = log.steps[-1].outcome or log.steps[-1].step
            found.append(LogSummary(path, num_clicks, last.time, log.header.model_id))
    return sorted(found, key=lambda summary: summary.last_time, reverse=True)

"""One piece of work per row: in this process, in several on this machine, or on the machines of a cluster.

Dask (`distributed`) spreads the rows; docs/how-to/parallel.md says how to start a cluster.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from clickvol.errors import ClickvolError, ConfigError
from clickvol.version import __version__

if TYPE_CHECKING:
    from distributed import Client

Row = TypeVar("Row")
Result = TypeVar("Result")

OnProgress = Callable[[int, int, str], None]
"""Hears how many parts of a job are done, of how many, and one line on what was done last or has failed."""


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row without a result, and why, in one line."""

    reason: str


def run_rows(
    work: Callable[[Row], Result],
    rows: Sequence[Row],
    on_done: Callable[[Row, Result | RowFailure], None],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Do a piece of work for every row. A row that fails does not stop the others.

    A row whose process died is done again, in the end alone, so that it has all the memory.

    Args:
        work: called with a row, one at a time in each process. A `ClickvolError` ends everything; any other
            exception fails its row. With a cluster it is sent to the workers, as are rows and results: it must
            be importable there, and the files must have the same paths there.
        rows: what to do.
        on_done: called in this thread with each row and its result, in the order in which they come.
        workers: processes on this machine; with 1 no other process is started.
        scheduler: address of a Dask scheduler, or the file that it wrote; its workers do the rows.

    Raises:
        ConfigError: for no worker, for both `workers` and `scheduler`, and for a scheduler that cannot be
            reached or is lost.
        ClickvolError: that the work raises.
    """
    check_workers(workers, scheduler)
    if scheduler is None and workers == 1:
        for row in rows:
            on_done(row, _attempt(row, work))
        return
    if not rows:
        return
    with _connect(min(workers, len(rows)), scheduler) as client:
        suspects = _run_on_cluster(client, work, rows, on_done)
        for row in suspects:
            for _ in _run_on_cluster(client, work, [row], on_done):
                reason = "its process died again and again, perhaps of a lack of memory; use fewer workers"
                on_done(row, RowFailure(reason))


def check_workers(workers: int, scheduler: str | None) -> None:
    """Refuse what `run_rows` cannot do; ConfigError for no worker, or several beside a scheduler."""
    if workers < 1:
        raise ConfigError(f"{workers} workers do nothing; give at least 1")
    if scheduler is not None and workers > 1:
        raise ConfigError(
            f"{workers} workers on this machine and the scheduler {scheduler} exclude each other; give one"
        )


def worker_number() -> int:
    """Return which of the workers that `run_rows` started on this machine this is, from 0; 0 elsewhere."""
    if "distributed" not in sys.modules:
        return 0
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:  # not a worker
        return 0
    return name if isinstance(name, int) else 0


def _attempt(row: Row, work: Callable[[Row], Result]) -> Result | RowFailure:
    try:
        return work(row)
    except ClickvolError:
        raise
    except MemoryError:
        return RowFailure("there is not enough memory for this scan; use fewer workers")
    except Exception as error:  # whatever is wrong with one row must not stop the others
        return RowFailure(" ".join(f"unexpected {type(error).__name__}: {error}".split()))


@dataclass(frozen=True, slots=True)
class _Attempted(Generic[Result]):
    """What a worker sends back, unless there is an error."""

    outcome: Result | RowFailure


def _attempted(row: Row, work: Callable[[Row], Result], folder: Path) -> _Attempted[Result]:
    with contextlib.chdir(folder):  # relative paths mean what they mean where the command runs
        return _Attempted(_attempt(row, work))


def _connect(workers: int, scheduler: str | None) -> "contextlib.AbstractContextManager[Client]":
    # Not at the top: the import takes half a second, and one process needs none of it.
    from clickvol.parallel.cluster import connect_to, start_workers

    return start_workers(workers) if scheduler is None else connect_to(scheduler)


def _run_on_cluster(
    client: "Client",
    work: Callable[[Row], Result],
    rows: Sequence[Row],
    on_done: Callable[[Row, Result | RowFailure], None],
) -> list[Row]:
    """Do rows, and return those without a result because the process died in which they or others were done.

    Dask cannot tell which row killed a process, and counts a death for all that were waiting there.
    """
    from distributed import KilledWorker, as_completed

    futures = client.map(partial(_attempted, work=work, folder=Path.cwd()), rows, pure=False)
    row_of_key = {future.key: row for future, row in zip(futures, rows, strict=True)}
    completed = as_completed(futures, loop=client.loop, with_results=True, raise_errors=False)
    del futures  # a result that came is not computed again when its worker dies
    suspects = []
    for future, result in completed:
        row = row_of_key[future.key]
        # Not the status of the future, which changes when the worker that did the row dies afterwards.
        if isinstance(result, _Attempted):
            on_done(row, result.outcome)
            continue
        if not isinstance(result, tuple):
            raise ConfigError("the scheduler is gone; the same command again goes on when it is back")
        _, error, _ = result
        if isinstance(error, ClickvolError):
            raise error
        if not isinstance(error, KilledWorker):  # not from the work, which fails its row
            first_line = str(error).partition("\n")[0]
            raise ConfigError(
                f"the cluster cannot do the rows ({type(error).__name__}: {first_line}); scheduler and workers "
                f"need clickvol {__version__} and the packages that are here"
            ) from error
        suspects.append(row)
    return suspects

"""Many scans: a manifest in, a mask per row and a table out; stoppable at any moment and resumable.

One process, this one, deals rows out to workers, each a process of its own that loads a model once. Workers do
not share a pool: one that dies takes a single row with it, and that row is known.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from clickvol.batch.launch import Launch, Shard, launched
from clickvol.batch.manifest import BatchRow, read_manifest
from clickvol.batch.records import (
    RECORDS_NAME,
    RowRecord,
    current_record,
    write_record,
    write_summary,
)
from clickvol.batch.worker import (
    WorkerPlace,
    failed_record,
    prepare_process,
    run_row,
)
from clickvol.errors import BatchError, ConfigError, OutputError
from clickvol.files.atomic import remove_abandoned
from clickvol.files.file_lock import lock_or_refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What to do.

    Attributes:
        manifest: CSV file; docs/batch.md has its columns.
        folder: for relative outputs, the records and the summary.
        shard: which rows; None for all, or for those that a launcher gives this process.
        workers: processes on this machine.
        model: id or path for rows that name none; None takes the default model.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ConfigError: on construction, for no worker.
    """

    manifest: Path
    folder: Path
    shard: Shard | None = None
    workers: int = 1
    model: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"{self.workers} workers do nothing; give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        done: rows with an outcome, those of earlier runs included.
        total: rows of this shard.
        failed: of those done, how many have no mask.
    """

    done: int
    total: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What came of a batch, or of a shard.

    Attributes:
        shard: which rows.
        total: how many rows.
        earlier: how many had been done before.
        failed: how many have no mask.
        summary: the table of all rows, those of other shards included.
    """

    shard: Shard
    total: int
    earlier: int
    failed: int
    summary: Path

    def raise_if_failed(self) -> None:
        """Refuse to call a batch done that is not.

        Raises:
            BatchError: when a row failed.
        """
        if self.failed:
            raise BatchError(
                f"{self.failed} of {self.total} rows failed; {self.summary} says why, and the same "
                "command again tries them again"
            )


def run_batch(
    request: BatchRequest, *, on_progress: Callable[[BatchProgress], None] = lambda _: None
) -> BatchOutcome:
    """Do every row of the shard that is not done yet. A row that fails is tried again the next time.

    Args:
        request: what to do.
        on_progress: called at the beginning and after every row.

    Raises:
        ConfigError: for a manifest that is none, or a shard that another process is working on.
        OutputError: when the folder cannot be written.
    """
    rows = read_manifest(request.manifest, request.folder, model=request.model, device=request.device)
    with launched(request.shard, os.environ) as launch, _held(request.folder, launch.shard):
        mine = [row for row in rows if launch.shard.holds(row.number)]
        if launch.shard.count == 1:
            _clear_remains(request.folder, mine)
        missing = [row for row in mine if not _is_done(request.folder, row)]
        earlier = len(mine) - len(missing)
        failed = 0
        on_progress(BatchProgress(done=earlier, total=len(mine), failed=failed))
        with contextlib.closing(_answers(missing, request, launch)) as answers:
            for number, record in enumerate(answers, start=earlier + 1):
                failed += record.status == "failed"
                on_progress(BatchProgress(done=number, total=len(mine), failed=failed))
        summary = write_summary(request.folder, rows)
    return BatchOutcome(shard=launch.shard, total=len(mine), earlier=earlier, failed=failed, summary=summary)


@contextlib.contextmanager
def _held(folder: Path, shard: Shard) -> Iterator[None]:
    """Keep a second process from the same shard, where the file system has locks; not every cluster's has."""
    name = f".shard-{shard.number}-of-{shard.count}.lock"
    try:
        (folder / RECORDS_NAME).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / RECORDS_NAME / name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    try:
        with contextlib.suppress(OutputError):
            lock_or_refuse(descriptor, f"another process is working on shard {shard} in {folder}; wait for it")
        yield
    finally:
        os.close(descriptor)


def _clear_remains(folder: Path, rows: Sequence[BatchRow]) -> None:
    """Remove what killed workers left half written; only where no other shard may be writing."""
    inside = folder.absolute()
    parents = {row.job.mask.parent for row in rows if row.job}
    for place in (
        folder,
        folder / RECORDS_NAME,
        *(p for p in parents if p.is_relative_to(inside)),
    ):
        if place.is_dir():
            remove_abandoned(place)


def _is_done(folder: Path, row: BatchRow) -> bool:
    record = current_record(folder, row)
    return record is not None and record.status == "done"


def _answers(rows: Sequence[BatchRow], request: BatchRequest, launch: Launch) -> Generator[RowRecord]:
    """Yield the record of every row as it comes, each written already."""
    for row in rows:
        if row.job is None:
            yield run_row(row, WorkerPlace(folder=request.folder, slot=0))
    waiting = deque(row for row in rows if row.job is not None)
    with contextlib.ExitStack() as workers:
        free = deque(
            workers.enter_context(_Worker(request.folder, launch.first_slot + index, _threads(request.workers)))
            for index in range(min(request.workers, len(waiting)))
        )
        running: dict[Future[RowRecord], tuple[_Worker, BatchRow]] = {}
        while waiting or running:
            while waiting and free:
                worker, row = free.popleft(), waiting.popleft()
                running[worker.start(row)] = (worker, row)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                worker, row = running.pop(future)
                free.append(worker)
                yield worker.result(future, row)


class _Worker(contextlib.AbstractContextManager["_Worker"]):
    """One process that does rows; a new one takes its place when it dies.

    Args:
        folder: of the records.
        slot: its number on the machine.
        num_threads: for its network; None leaves it to the environment.
    """

    def __init__(self, folder: Path, slot: int, num_threads: int | None) -> None:
        self._place = WorkerPlace(folder=folder, slot=slot)
        self._num_threads = num_threads
        self._pool = self._new_pool()
        self._processes: list[BaseProcess] = []

    def start(self, row: BatchRow) -> Future[RowRecord]:
        """Begin a row."""
        others = multiprocessing.active_children()
        with _deaf_to_interrupts():
            try:
                future = self._pool.submit(run_row, row, self._place)
            except BrokenProcessPool:  # it died between two rows
                self._pool = self._new_pool()
                future = self._pool.submit(run_row, row, self._place)
        self._processes += [p for p in multiprocessing.active_children() if p not in others]
        return future

    def result(self, future: Future[RowRecord], row: BatchRow) -> RowRecord:
        """Return the record of a row that is finished, also where the process did not live to write it."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._new_pool()
        record = failed_record(
            row,
            "the process died while it worked on this row, perhaps of a lack of memory; use fewer workers",
        )
        with contextlib.suppress(OutputError):
            write_record(self._place.folder, row, record)
        return record

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the process: after its row, or as soon as it can where something went wrong (or Ctrl-C)."""
        if kind is not None:
            for process in self._processes:
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=prepare_process,
            initargs=(self._num_threads,),
        )


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that starts in the block ignore Ctrl-C from its first instant on, not only once ready."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _threads(workers: int) -> int | None:
    """Return how many threads each worker may use; None where the environment says so."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // workers)

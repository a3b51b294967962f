"""Threads that do what takes long, a bounded number of requests at a time, and stop early when told to."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from clickvol.errors import CancelledError
from clickvol.server.refusal import RefusedError

T = TypeVar("T")

IsCancelled = Callable[[], bool]
"""Asked between two steps of a job; True: nobody waits for the result any more."""

# How often a waiting request looks whether its client is still there. Short against any look of a network.
_POLL_SECONDS = 0.2

_RETRY_AFTER_SECONDS = 5

_BUSY = "the server has as many requests waiting as it takes; try again in a few seconds"
_CANCELLED = "this was cancelled because nobody waits for it; nothing has changed"


class Ticket(Generic[T]):
    """A job that waits or runs.

    Args:
        job: the work; may ask whether it is cancelled.
    """

    def __init__(self, job: Callable[[IsCancelled], T]) -> None:
        self.future: Future[T] = Future()
        self._job = job
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Let it stop as soon as it can; one that has not begun will not begin."""
        self._cancelled.set()

    def run(self) -> None:
        """Do the work, and put its result or its error into the future."""
        try:
            if self.is_cancelled:
                raise CancelledError(_CANCELLED)  # one way out for both
            self.future.set_result(self._job(self._cancelled.is_set))
        except BaseException as error:  # it belongs to whoever asked; the thread goes on
            self.future.set_exception(error)


class Worker:
    """A few threads with a bounded queue.

    Args:
        name: of its threads.
        num_threads: 1 makes everything that it does happen one after the other.
        max_waiting: jobs that may wait, beside those that run.
    """

    def __init__(self, name: str, *, num_threads: int, max_waiting: int) -> None:
        self._queue: queue.Queue[Ticket[object] | None] = queue.Queue(max_waiting)
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Jobs that have not begun."""
        return self._queue.qsize()

    def submit(self, job: Callable[[IsCancelled], T]) -> Ticket[T]:
        """Queue a job.

        Raises:
            RefusedError: 429, when the queue is full.
        """
        ticket = Ticket(job)
        try:
            self._queue.put_nowait(ticket)  # type: ignore[arg-type]  # results of any type
        except queue.Full as error:
            raise RefusedError(429, _BUSY, retry_after_seconds=_RETRY_AFTER_SECONDS) from error
        return ticket

    async def run(
        self,
        job: Callable[[IsCancelled], T],
        *,
        is_gone: Callable[[], Awaitable[bool]] | None = None,
    ) -> T:
        """Queue a job and wait for its result without blocking the event loop.

        Args:
            job: the work.
            is_gone: tells whether the client has hung up, which cancels the job.

        Raises:
            RefusedError: 429, when the queue is full.
            CancelledError: when the client has hung up.
        """
        ticket = self.submit(job)
        waiting = asyncio.wrap_future(ticket.future)
        # Where nobody takes the error any more, it is no news.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not (await asyncio.wait({waiting}, timeout=_POLL_SECONDS))[0]:
                if is_gone is not None and not ticket.is_cancelled and await is_gone():
                    ticket.cancel()
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        return waiting.result()

    def close(self) -> None:
        """End the threads after what they do now; what waits is cancelled."""
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting.cancel()
                waiting.run()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            ticket.run()
            del ticket  # or it would hold a scan until the next job

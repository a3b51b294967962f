"""Threads that do what takes long, a bounded number of requests at a time, and stop early when told to."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from clickvol.errors import CancelledError
from clickvol.server.refusal import RefusedError

T = TypeVar("T")

IsCancelled = Callable[[], bool]
"""Called between two steps of a job; True: the request was cancelled."""

IsGone = Callable[[], Awaitable[bool]]
"""Tells whether the client has hung up."""

# How often a waiting request asks whether its client is still there. Short against any call of a network.
_POLL_SECONDS = 0.2

_RETRY_AFTER_SECONDS = 5

_BUSY = "the server has as many requests waiting as it takes; try again in a few seconds"


class Worker:
    """A few threads with a bounded queue; for the event loop's thread.

    Args:
        name: of its threads.
        num_threads: 1 makes everything that it does happen one after the other.
        max_waiting: jobs that may wait; those that run do not count.
    """

    def __init__(self, name: str, *, num_threads: int, max_waiting: int) -> None:
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._max_waiting = max_waiting
        self._jobs: dict[Future[Any], threading.Event] = {}

    @property
    def num_waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(not (job.running() or job.done()) for job in tuple(self._jobs))

    async def run(self, job: Callable[[IsCancelled], T], *, is_gone: IsGone | None = None) -> T:
        """Queue a job and wait for its result without blocking the loop; a client that hangs up cancels it.

        Raises:
            RefusedError: 429, when the queue is full.
            CancelledError: when the client has hung up, or the server ends.
        """
        if self.num_waiting >= self._max_waiting:
            raise RefusedError(429, _BUSY, retry_after_seconds=_RETRY_AFTER_SECONDS)
        cancelled = threading.Event()
        future = self._executor.submit(_run_unless, cancelled.is_set, job)
        self._jobs[future] = cancelled
        future.add_done_callback(self._jobs.pop)
        waiting = asyncio.wrap_future(future)
        # Where nobody takes the error any more, it is no news.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not (await asyncio.wait({waiting}, timeout=_POLL_SECONDS))[0]:
                if is_gone is not None and not cancelled.is_set() and await is_gone():
                    cancelled.set()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return waiting.result()

    def submit(self, job: Callable[[], object]) -> None:
        """Queue what must be done, however many wait; nobody waits for it."""
        self._executor.submit(job)

    def close(self) -> None:
        """End the threads after what they do now; requests that wait are cancelled."""
        for job, cancelled in tuple(self._jobs.items()):
            if not job.running():
                cancelled.set()
        self._executor.shutdown()


def _run_unless(is_cancelled: IsCancelled, job: Callable[[IsCancelled], T]) -> T:
    if is_cancelled():
        raise CancelledError("the request was cancelled; nothing has changed")
    return job(is_cancelled)

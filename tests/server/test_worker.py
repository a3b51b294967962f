import asyncio
import threading

import pytest

from clickvol.errors import CancelledError
from clickvol.server.refusal import RefusedError
from clickvol.server.worker import Worker


@pytest.fixture
def worker():
    made = Worker("test", num_threads=1, max_waiting=2)
    yield made
    made.close()


def test_a_job_gives_its_result_or_its_error(worker):
    async def ask():
        assert await worker.run(lambda _: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda _: 1 // 0)
        return await worker.run(lambda _: threading.current_thread().name)

    assert asyncio.run(ask()) == "test_0"


def test_jobs_run_one_after_the_other(worker):
    running, most = 0, 0

    def job(_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.01)
        running -= 1

    async def ask():
        await asyncio.gather(worker.run(job), worker.run(job))

    asyncio.run(ask())
    assert most == 1


class Gate:
    """A job that waits until it may go on."""

    def __init__(self):
        self.begun, self._open = threading.Event(), threading.Event()

    def __call__(self, _):
        self.begun.set()
        self._open.wait()

    def open(self):
        self._open.set()


async def started(worker, gate):
    """Return a task in which a worker waits at a gate."""
    task = asyncio.create_task(worker.run(gate))
    while not gate.begun.is_set():
        await asyncio.sleep(0.005)
    return task


def test_a_full_queue_refuses_at_once(worker):
    async def ask():
        gate = Gate()
        running = await started(worker, gate)
        waiting = [asyncio.create_task(worker.run(lambda _: None)) for _ in range(2)]
        await asyncio.sleep(0)
        assert worker.num_waiting == 2
        with pytest.raises(RefusedError) as refused:
            await worker.run(lambda _: None)
        assert (refused.value.status, refused.value.retry_after_seconds) == (429, 5)
        worker.submit(lambda: None)  # what must be done is never refused
        gate.open()
        await asyncio.gather(running, *waiting)
        assert worker.num_waiting == 0

    asyncio.run(ask())


def test_a_client_that_hangs_up_cancels_its_job(worker):
    async def gone():
        return True

    def job(is_cancelled):
        while not is_cancelled():
            threading.Event().wait(0.005)
        raise CancelledError("as told")

    async def ask():
        with pytest.raises(CancelledError, match="as told"):
            await worker.run(job, is_gone=gone)

    asyncio.run(ask())


def test_a_job_whose_client_went_while_it_waited_is_not_begun(worker):
    ran = []

    async def ask():
        gate = Gate()
        running = await started(worker, gate)
        waiting = asyncio.create_task(worker.run(lambda _: ran.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        gate.open()
        await running
        await worker.run(lambda _: None)

    asyncio.run(ask())
    assert ran == []


def test_closing_cancels_what_waits_and_does_what_must_be_done():
    worker = Worker("test", num_threads=1, max_waiting=2)
    done = []

    async def ask():
        gate = Gate()
        running = await started(worker, gate)
        waiting = asyncio.create_task(worker.run(lambda _: done.append("refused")))
        await asyncio.sleep(0)
        worker.submit(lambda: done.append("cleaned up"))
        threading.Timer(0.05, gate.open).start()
        worker.close()
        await running
        with pytest.raises(CancelledError, match="cancelled"):
            await waiting

    asyncio.run(ask())
    assert done == ["cleaned up"]

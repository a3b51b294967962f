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

    assert asyncio.run(ask()) == "test-0"


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


def test_a_full_queue_refuses_at_once(worker):
    gate, begun = threading.Event(), threading.Event()

    def blocking(_):
        begun.set()
        gate.wait()

    tickets = [worker.submit(blocking)]
    begun.wait()
    tickets += [worker.submit(lambda _: None) for _ in range(2)]
    assert worker.num_waiting == 2
    with pytest.raises(RefusedError) as refused:
        worker.submit(lambda _: None)
    assert refused.value.status == 429
    assert refused.value.retry_after_seconds == 5
    gate.set()
    assert [ticket.future.result() for ticket in tickets] == [None] * 3


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
    gate, begun, ran = threading.Event(), threading.Event(), []

    def blocking(_):
        begun.set()
        gate.wait()

    first = worker.submit(blocking)
    begun.wait()
    second = worker.submit(lambda _: ran.append(1))
    second.cancel()
    gate.set()
    with pytest.raises(CancelledError, match="nobody waits"):
        second.future.result()
    assert first.future.result() is None
    assert ran == []


def test_closing_cancels_what_waits():
    worker = Worker("test", num_threads=1, max_waiting=2)
    gate, begun = threading.Event(), threading.Event()

    def blocking(_):
        begun.set()
        gate.wait()

    running = worker.submit(blocking)
    begun.wait()
    waiting = worker.submit(lambda _: 1)
    threading.Timer(0.05, gate.set).start()
    worker.close()
    assert running.future.result() is None
    with pytest.raises(CancelledError):
        waiting.future.result()

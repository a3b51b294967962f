"""The Dask cluster that does the rows: one of this machine, for this command alone, or one that exists."""

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from clickvol.errors import ConfigError

_CONNECT_SECONDS = 10


_LOCAL_SETTINGS = {
    # A row may see its process die twice in company, then `run_rows` does it alone.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that dies while it starts is given up, so that `adapt` starts another.
    "distributed.deploy.lost-worker-timeout": "5s",
    # No row waits at a worker that may die of another one.
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask's own trimming of memory costs torch time, and it would stay in the environment of this process.
    "distributed.nanny.pre-spawn-environ": {},
    # No watching of the rows' code, little of the processes, and no web pages.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextlib.contextmanager
def start_workers(count: int) -> Iterator[Client]:
    """Start workers on this machine for the length of a block; one that dies is replaced.

    Each has one thread for rows and its part of the cores for the network. They listen on 127.0.0.1 alone and
    speak TLS with a key of this process, so that no other user of the machine can send them work. They end with
    this process, however it ends.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(dask.config.set(_LOCAL_SETTINGS))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clickvol-workers-"))
        with _interrupts_blocked():
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                host="127.0.0.1",
                security=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(_threads(count)))},
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(cluster.close)
            cluster.adapt(minimum=count, maximum=count)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        yield client


@contextlib.contextmanager
def connect_to(scheduler: str) -> Iterator[Client]:
    """Use the workers of a scheduler, named by its address (tcp://10.0.0.5:8786) or the file that it wrote.

    ConfigError when it cannot be reached.
    """
    place = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    with _quiet():
        try:
            client = Client(**place, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TypeError, ValueError) as error:  # TypeError: no certificate for tls://
            raise ConfigError(
                f"cannot reach a Dask scheduler at {scheduler}; start one with `dask scheduler`, and give the "
                "address that it prints"
            ) from error
        try:
            yield client
        finally:
            with contextlib.suppress(TimeoutError):  # of a scheduler that is gone
                client.close(timeout=_CONNECT_SECONDS)


def _threads(workers: int) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // workers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's logs off the terminal; what matters becomes an error of one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let threads that start in the block never see Ctrl-C, nor the processes that these start at any time.

    A terminal sends it to all; this process decides.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # whoever starts it unblocks signals
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

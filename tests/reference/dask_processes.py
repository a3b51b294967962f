"""A Dask scheduler and a worker, each in a process of its own, as a user starts them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import clickvol

TESTS = Path(__file__).parents[1]
SOURCE = Path(clickvol.__file__).parents[1]


@contextlib.contextmanager
def scheduler_and_worker(folder, python_path=(TESTS, SOURCE)):
    """Start both on 127.0.0.1; yield the file that the scheduler writes, and its process."""
    file = Path(folder) / "scheduler.json"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "OMP_NUM_THREADS": "1",
    }
    common = ["--scheduler-file", file, "--host", "127.0.0.1", "--no-dashboard"]
    with contextlib.ExitStack() as stack:

        def start(*words):
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, timeout=60)
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", *common, "--port", "0")
        start("worker", *common, "--nthreads", "1", "--local-directory", folder)
        yield file, scheduler


def address_of(file, seconds=60):
    """Wait for the scheduler, and return its address."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(file.read_text())["address"]
        time.sleep(0.1)
    raise TimeoutError("the scheduler did not start")

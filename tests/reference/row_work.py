"""Work for rows that is importable in other processes. A row is a number, or a tuple of words and paths."""

import os
import signal
import time
from pathlib import Path

from clickvol.errors import ConfigError
from clickvol.parallel.rows import worker_number


def do(row):
    """Do what the first word of a row says; the second is a folder, where every attempt leaves a line."""
    word, folder, number = row
    with (Path(folder) / f"{word}-{number}").open("a") as attempts:
        attempts.write(f"{os.getpid()}\n")
    count = len((Path(folder) / f"{word}-{number}").read_text().splitlines())
    if word == "crash" or (word == "crash-once" and count == 1):
        time.sleep(1)  # the worker has started wholly
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "odd":
        raise KeyError("an\nodd row")
    if word == "stop":
        raise ConfigError("this is wrong for all rows")
    if word == "memory":
        raise MemoryError
    if word == "slow":
        time.sleep(60)
    if word == "relative":
        return Path(f"{word}-{number}").resolve() == Path(folder).resolve() / f"{word}-{number}"
    if word == "where":
        import torch

        time.sleep(0.5)
        return worker_number(), os.getpid(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads()
    return f"{word} {number}"


def attempts(folder, word, number):
    """Return the processes that tried a row."""
    path = Path(folder) / f"{word}-{number}"
    return path.read_text().split() if path.exists() else []

"""A training run that takes seconds: the tiny network on two phantoms."""

from functools import cache
from pathlib import Path

import pytest
import torch

from clickvol.datasets import loader
from clickvol.training import loop, run
from reference.launched_runs import TINY_RUN


@pytest.fixture(autouse=True)
def _restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _phantoms_once():
    """Paint each synthetic scan once for all runs of this process: a seed gives the same one every time."""
    with pytest.MonkeyPatch.context() as change:
        change.setattr(run, "make_phantoms", cache(loader.make_phantoms))
        yield


@pytest.fixture
def log_every_second_step(monkeypatch):
    monkeypatch.setattr(loop, "_LOG_EVERY", 2)


@pytest.fixture
def write_config(tmp_path):
    """Write the configuration of a run into a folder of the given name; return both paths."""

    def write(name: str) -> tuple[Path, Path]:
        path, folder = tmp_path / f"{name}.toml", tmp_path / name
        path.write_text(TINY_RUN.format(folder=folder), encoding="utf-8")
        return path, folder

    return write

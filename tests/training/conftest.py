"""A training run that takes seconds: the tiny network on two phantoms."""

from pathlib import Path

import pytest
import torch

from clickvol.training import loop

CONFIG = """
[model]
id = "t"
title = "a tiny one"
size = "tiny"

[data]
phantoms = 2

[sampling]
corrected_click_share = 0.5

[optimiser]
steps = 8
batch_size = 2
warmup_steps = 2

[run]
folder = "{folder}"
seed = 3
threads = 1
precision = "float32"
checkpoint_every = 3
"""


@pytest.fixture(autouse=True)
def _restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def log_every_second_step(monkeypatch):
    monkeypatch.setattr(loop, "_LOG_EVERY", 2)


@pytest.fixture
def write_config(tmp_path):
    """Write the configuration of a run into a folder of the given name; return both paths."""

    def write(name: str) -> tuple[Path, Path]:
        path, folder = tmp_path / f"{name}.toml", tmp_path / name
        path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        return path, folder

    return write

import ctypes
import dataclasses
import logging
import subprocess
import sys

import pytest
import torch

from clickvol.methods.promise3d import promise3d_recipe
from clickvol.training.memory import bytes_of_step, free_bytes
from clickvol.training.read_config import read_train_config
from clickvol.training.tasks import volume_task
from clickvol.training.tasks.volume_task import VolumeTask

GIB = 2**30


def network(size):
    return promise3d_recipe("released", size).network


def test_the_estimate_is_the_measured_step_at_vit_b_and_grows_with_patch_and_batch():
    measured = bytes_of_step(network("vit_b"), 1)
    assert measured / GIB == pytest.approx(31.8)
    assert bytes_of_step(network("vit_b"), 2) == pytest.approx(2 * measured)
    half = dataclasses.replace(network("vit_b"), patch_shape_dhw=(64, 128, 128))
    assert bytes_of_step(half, 1) == pytest.approx(measured / 2)
    # Twice the blocks, four thirds of the width.
    assert bytes_of_step(network("vit_l"), 1) / GIB == pytest.approx(6.7 + 25.1 * 2 * 4 / 3)


def test_an_encoder_without_sams_blocks_keeps_nothing_of_them():
    assert bytes_of_step(promise3d_recipe("clickvol", "litemedsam").network, 1) == 0


def test_the_free_memory_of_this_machine_is_some_and_not_more_than_it_has():
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**45


@pytest.mark.parametrize("free_gib", [0.0001, 1000])
def test_auto_computes_blocks_again_where_memory_asks_for_it_and_says_so(
    write_config, monkeypatch, caplog, free_gib
):
    monkeypatch.setattr(volume_task, "free_bytes", lambda _: int(free_gib * GIB))
    path, _ = write_config("run")
    config = read_train_config(path, ["run.recompute_blocks=auto"])
    with caplog.at_level(logging.WARNING, "clickvol.training"):
        built = VolumeTask(config).build_network()
    assert built.image_encoder.checkpoint_blocks == (free_gib < 1)
    assert ("computed again for the gradient" in caplog.text) == (free_gib < 1)


# A program of its own: what is there depends on what was freed before, and on the thread.
FAULTS = """
import resource, torch
from clickvol.training.memory import freed_memory_kept
def page_faults_of_a_large_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**25).fill_(1.0)  # 128 MiB, freed again at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
page_faults_of_a_large_block()
with freed_memory_kept(torch.device("cpu")):
    # What is aligned may not fit into what the one before has left, but a later one does.
    kept = min(page_faults_of_a_large_block() for _ in range(6))
print(kept, page_faults_of_a_large_block())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_freed_in_a_step_is_there_for_the_next_one_and_given_back_at_the_end():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, afterwards = map(int, done.stdout.split())
    assert kept < 50
    assert afterwards > 10 * 50

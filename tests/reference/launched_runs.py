"""Training runs of several processes, and what to compare them by."""

import os
import socket
import subprocess
import sys

import torch

from reference.forked_program import ForkedProgram

TINY_RUN = """
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
"""A training file: the tiny network on two phantoms, seconds of work."""

FIRST_STEP = ["optimiser.steps=1", "optimiser.max_gradient_norm=1e9"]
"""One step whose gradient is not clipped: what must be equal however the samples are split over processes.

Later gradients are not: AdamW makes a step of full size of a gradient near zero, whose sign is rounding.
"""


def launch(count, config, *overrides):
    """Run `clickvol train` under torchrun with the Gloo backend, as on a machine without CUDA.

    Args:
        count: processes.
        config: path of the configuration.
        overrides: "section.field=value".
    """
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [sys.executable, *words, "-m", "clickvol", *_train(config, overrides)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def forked_pair(config, *overrides, prepare=None):
    """Run `clickvol train` in two processes that know what torchrun would tell them, at a tenth of its cost.

    Args:
        config: path of the configuration.
        overrides: "section.field=value".
        prepare: a fault, see `wrong_averaging`.

    Returns:
        The exit statuses and what each wrote to stderr.
    """
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    programs = [
        ForkedProgram(
            _train(config, overrides),
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
            prepare=prepare,
        )
        for rank in ("0", "1")
    ]
    told = [program.communicate()[1] for program in programs]
    return [program.poll() for program in programs], told


def _train(config, overrides):
    return ["train", str(config), *(word for override in overrides for word in ("--set", override))]


def gradients(folder):
    """Return the gradient of the first step of a run that took one, all parameters in one."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert content["step"] == 1
    states = content["optimiser"]["state"].values()
    return torch.cat([state["exp_avg"].flatten() for state in states]).double()


def relative_difference(ours, reference):
    """Return |ours - reference| / |reference|."""
    return float((ours - reference).norm() / reference.norm())

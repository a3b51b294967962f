"""Training runs of several processes, and what to compare them by."""

import os
import subprocess
import sys
from pathlib import Path

import torch

FIRST_STEP = ["optimiser.steps=1", "optimiser.max_gradient_norm=1e9"]
"""One step whose gradient is not clipped: what must be equal however the samples are split over processes.

Later gradients are not: AdamW makes a step of full size of a gradient near zero, whose sign is rounding.
"""


def launch(count, config, *overrides, averaging="mean"):
    """Run `clickvol train` under torchrun with the Gloo backend, as on a machine without CUDA.

    Args:
        count: processes.
        config: path of the configuration.
        overrides: "section.field=value".
        averaging: "mean" as it is; "sum" or "own" for a fault, see `wrong_averaging`.
    """
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    fault = Path(__file__).with_name("wrong_averaging.py")
    program = ["-m", "clickvol"] if averaging == "mean" else [str(fault), averaging]
    settings = [word for override in overrides for word in ("--set", override)]
    return subprocess.run(
        [sys.executable, *words, *program, "train", str(config), *settings],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def gradients(folder):
    """Return the gradient of the first step of a run that took one, all parameters in one."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert content["step"] == 1
    states = content["optimiser"]["state"].values()
    return torch.cat([state["exp_avg"].flatten() for state in states]).double()


def relative_difference(ours, reference):
    """Return |ours - reference| / |reference|."""
    return float((ours - reference).norm() / reference.norm())

"""Training runs of several processes, and what to compare them by."""

import os
import subprocess
import sys

import torch


def launch(count, config, *overrides):
    """Run `clickvol train` under torchrun with the Gloo backend, as on a machine without CUDA."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    settings = [word for override in overrides for word in ("--set", override)]
    return subprocess.run(
        [sys.executable, *words, "-m", "clickvol", "train", str(config), *settings],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def gradients(folder):
    """Return AdamW's mean gradient after a run, all parameters in one."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert content["step"] == 3
    states = content["optimiser"]["state"].values()
    return torch.cat([state["exp_avg"].flatten() for state in states]).double()

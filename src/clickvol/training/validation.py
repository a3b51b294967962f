"""The loss on scans that are not trained on, from the same samples every time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from clickvol.datasets.samples import LabelledVolume
from clickvol.training.tasks.task import Task

# Samples per validation scan. The released code takes one, a new one every time.
_SAMPLES_PER_CASE = 2


class Validator:
    """Fixed samples of the validation scans.

    The measure is the released code's: the mean soft Dice loss of the object, for TAGS with its alignment loss,
    with 10 clicks inside; which is also what "best" means there. There one patch per scan is drawn anew every
    time, so that the best is partly luck; here there are two, and they are fixed.

    Args:
        cases: validation scans.
        task: what is trained.
        device: where the network is.
    """

    def __init__(self, cases: Sequence[LabelledVolume], task: Task[Any], device: torch.device) -> None:
        self._batches = list(task.plain_batches(cases, _SAMPLES_PER_CASE, device))
        self._device = device

    @torch.no_grad()
    def loss(self, step: nn.Module) -> float:
        """Return the mean over the samples of what weights are chosen by, with the network as it is."""
        step.eval()
        losses = [step(batch.to(self._device), 0)[2] for batch in self._batches]
        return float(torch.stack(losses).double().mean())

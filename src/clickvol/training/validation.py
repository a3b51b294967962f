"""The loss on scans that are not trained on, from the same samples every time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from clickvol.datasets.samples import LabelledVolume
from clickvol.training.tasks.step import SampleNumbers
from clickvol.training.tasks.task import Batch, Task

# Samples per validation scan. The released code takes one, a new one every time.
_SAMPLES_PER_CASE = 2


class Validator:
    """Fixed samples of the validation scans.

    The measure is the released ProMISe-3D code's: the mean soft Dice loss of the object, which is also what
    "best" means there. There the patches are drawn anew every time, so that the best is partly luck; here they
    are fixed.

    Args:
        cases: validation scans.
        task: what is trained.
        seed: of the run.
        device: where the network is.
    """

    def __init__(
        self, cases: Sequence[LabelledVolume], task: Task[Any], seed: int, device: torch.device
    ) -> None:
        self._batches: list[Batch] = []
        for number, case in enumerate(cases):
            rng = np.random.default_rng([seed, number, 3])
            drawn = [task.draw_plain(case, rng=rng) for _ in range(_SAMPLES_PER_CASE)]
            self._batches.append(task.stack(drawn))
        self._device = device

    @torch.no_grad()
    def loss(self, step: nn.Module) -> float:
        """Return the mean soft Dice loss over the samples, with the network as it is."""
        step.eval()
        losses = []
        for number, batch in enumerate(self._batches):
            placed = batch.to(self._device)
            _, _, loss = step(placed, SampleNumbers(0, number * len(batch.label)))
            losses.append(loss.item())
        return float(np.mean(losses))

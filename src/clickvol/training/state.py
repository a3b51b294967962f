"""What a run must remember to go on as if it had never stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


def _no_scaling() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


@dataclass(slots=True, eq=False)
class TrainState:
    """The moving parts of a run.

    Attributes:
        step: optimiser steps done.
        network: the network being trained.
        optimiser: its AdamW.
        average: moving average of the trained parameters, by name.
        scaler: of the loss in float16; does nothing otherwise.
        best_loss: lowest validation loss so far.
        samples: seen by all processes; the number of the next one.
        seconds: that training has taken, all starts together.
    """

    step: int
    network: nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    scaler: torch.amp.GradScaler = field(default_factory=_no_scaling)
    best_loss: float = float("inf")
    samples: int = 0
    seconds: float = 0.0

    def set_rate(self, rate: float) -> None:
        """Set the learning rate: in place where it is a tensor, which captured steps read."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate

    def weights_to_keep(self) -> dict[str, Tensor]:
        """Return the tensors of the network with the averaged parameters in place of the last ones."""
        return dict(self.network.state_dict()) | self.average

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have its averaged parameters inside the block."""
        parameters = dict(self.network.named_parameters())
        last = {name: parameters[name].detach().clone() for name in self.average}
        try:
            self._place(self.average)
            yield
        finally:
            self._place(last)

    @torch.no_grad()
    def _place(self, values: dict[str, Tensor]) -> None:
        parameters = dict(self.network.named_parameters())
        for name, value in values.items():
            parameters[name].copy_(value)

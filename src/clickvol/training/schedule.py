"""How long a run is, and the learning rate on the way."""

import math
from dataclasses import dataclass

from clickvol.training.config import OptimiserSection


@dataclass(frozen=True, slots=True)
class Schedule:
    """The length of a run in numbers that no longer depend on the data.

    Attributes:
        num_steps: optimiser steps in all.
        steps_per_epoch: steps in which as many samples are seen as there are scans.
        num_seconds: after which the run ends though steps are left.
    """

    num_steps: int
    steps_per_epoch: int
    num_seconds: float = math.inf

    @classmethod
    def of(
        cls, config: OptimiserSection, num_cases: int, samples_per_step: int, minutes: float | None = None
    ) -> "Schedule":
        """Work out the length for a number of training scans and of samples per step."""
        per_epoch = max(1, num_cases // samples_per_step)
        steps = config.steps if config.steps is not None else (config.epochs or 0) * per_epoch
        return cls(steps, per_epoch, math.inf if minutes is None else 60 * minutes)


def learning_rate(step: int, config: OptimiserSection, schedule: Schedule, seconds: float = 0.0) -> float:
    """Return the rate of a step, counted from 0, of a run that has taken so many seconds.

    "linear" is the released code's LinearLR: stepped once per epoch, factor 1 to 0.01 over 500 epochs
    (ProMISe-3D and TAGS stop at 200, 3DSAM-adapter goes on to 500).
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    last = config.final_rate
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "linear":
        done = min(step // schedule.steps_per_epoch / config.linear_epochs, 1.0)
        return config.learning_rate * (1 + (last - 1) * done)
    past = step - config.warmup_steps
    share = max(past / max(1, schedule.num_steps - config.warmup_steps), seconds / schedule.num_seconds)
    done = min(share, 1.0)
    if config.schedule == "polynomial":
        return config.learning_rate * float(max(last, 1 - done) ** 0.9)
    return config.learning_rate * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done)))

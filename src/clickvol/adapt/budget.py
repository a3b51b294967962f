"""How the minutes are spent: objects to score and steps to train, from one measured speed.

The same minutes on the same machine must give the same numbers, so the speed is measured once, rounded, and
kept in the cache; how busy the machine is later changes how long a run takes, and not what comes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from clickvol.weights.precision import measured_once

# Parts of the time: scoring once, which is done before and for two models after, and training. The rest is for
# opening scans and surprises.
_SCORING_SHARE = 0.08
_NUM_SCORINGS_AFTER = 2
_TRAINING_SHARE = 0.64

# Scoring an object with one and with three clicks takes about as long as so many steps: measured.
_STEPS_PER_OBJECT = 1.3

_MIN_STEPS = 20
_MIN_OBJECTS = 6

_SPEED_NAME = "adapt-speed"


@dataclass(frozen=True, slots=True)
class Budget:
    """What there is time for.

    Attributes:
        num_folds: trainings.
        num_steps: of each.
        num_objects: that are scored, before and after.
    """

    num_folds: int
    num_steps: int
    num_objects: int

    @classmethod
    def of(
        cls, seconds: float, step_seconds: float, num_folds: int, num_objects: int, num_patients: int
    ) -> "Budget":
        """Divide the time.

        Args:
            seconds: for all of it.
            step_seconds: of one training step.
            num_folds: trainings.
            num_objects: there are.
            num_patients: at least one object of each of six is scored.
        """
        affordable = int(_SCORING_SHARE * seconds / (_STEPS_PER_OBJECT * step_seconds))
        steps = int(_TRAINING_SHARE * seconds / (num_folds * step_seconds))
        return cls(
            num_folds=num_folds,
            num_steps=max(_MIN_STEPS, steps),
            num_objects=min(num_objects, max(min(num_patients, _MIN_OBJECTS), affordable)),
        )

    def done_before(self, objects: int) -> float:
        """Return which part of everything is done when so many objects were scored with the base."""
        return self._part(self._scoring * objects / self.num_objects)

    def done_training(self, fold: int, steps: int) -> float:
        """Return which part of everything is done in a fold after so many steps."""
        return self._part(self._scoring + fold * self._fold + steps)

    def done_after(self, fold: int, part: float) -> float:
        """Return which part of everything is done in a fold when this part of its objects is scored."""
        return self._part(
            self._scoring + (fold + 1) * self._fold - (1 - part) * self._scored_after / self.num_folds
        )

    @property
    def _scoring(self) -> float:
        return _STEPS_PER_OBJECT * self.num_objects

    @property
    def _fold(self) -> float:
        return self.num_steps + self._scored_after / self.num_folds

    @property
    def _scored_after(self) -> float:
        return _NUM_SCORINGS_AFTER * self._scoring

    def _part(self, steps: float) -> float:
        # Reading and choosing a base are the first twentieth.
        return 0.05 + 0.95 * steps / (self._scoring + self.num_folds * self._fold)


def machine_speed(model_sha256: str, measure: Callable[[], float]) -> float:
    """Return the seconds of a training step on this machine, as measured the first time, two digits.

    Args:
        model_sha256: of the base; another one has another speed.
        measure: measures it.
    """
    what = f"{torch.get_num_threads()} threads {model_sha256[:12]}"
    return float(measured_once(_SPEED_NAME, what, lambda: float(f"{measure():.2g}")))

"""The Dice to expect of a mask: what a model says of it, and what was measured on held-out patients."""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from clickvol.io.volume import Modality

Spread = tuple[float, float]
"""What the Dice of four masks out of five differs from the expected one, at least and at most."""


@dataclass(frozen=True, slots=True)
class DiceEstimate:
    """What the Dice of a mask is expected to be.

    Attributes:
        dice: in [0, 1].
        interval: where it was for four out of five such masks; None where the card does not tell.
        patients: with such masks, by modality and size, that were measured; 0 for none: dice and interval are
            then of all masks; None where the card does not tell.
    """

    dice: float
    interval: tuple[float, float] | None = None
    patients: int | None = None

    def __str__(self) -> str:
        """Return it in words."""
        if self.interval is None:
            return f"{self.dice:.2f}"
        masks = f"{self.patients} patients" if self.patients else "few comparable masks"
        return f"{self.dice:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f}; {masks})"


class MeasuredKind(BaseModel):
    """Masks of one modality and size, measured in patients left out of training.

    Attributes:
        from_mm, below_mm: of the longest side of the box around the mask; None for no upper bound.
        shift: mean difference of their Dice from the curve.
        patients: who they are of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality
    from_mm: float = 0.0
    below_mm: float | None = None
    shift: float
    spread: Spread
    patients: int


class ExpectedDice(BaseModel):
    """One curve for all masks, and a shift for each kind of them.

    Attributes:
        knots: (what the score head says, or the probability where there is none, the mean Dice measured there),
            rising, interpolated between.
        spread: of all masks; None in older cards, which have knots alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    knots: list[tuple[float, float]]
    spread: Spread | None = None
    kinds: list[MeasuredKind] = []

    def of(self, said: float, modality: Modality, longest_mm: float) -> DiceEstimate:
        """Return what to expect of a mask, of which the model says this."""
        predicted, measured = zip(*self.knots, strict=True)
        dice, spread, patients = float(np.interp(said, predicted, measured)), self.spread, 0
        for kind in self.kinds:
            is_below = kind.below_mm is None or longest_mm < kind.below_mm
            if kind.modality == modality and kind.from_mm <= longest_mm and is_below:
                dice, spread, patients = dice + kind.shift, kind.spread, kind.patients
        dice = float(np.clip(dice, 0, 1))
        if spread is None:
            return DiceEstimate(dice)
        low, high = np.clip([dice + spread[0], dice + spread[1]], 0, 1).tolist()
        return DiceEstimate(dice, (low, high), patients)

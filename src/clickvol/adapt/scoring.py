"""How good a model is at the user's objects, by the predictor that users get, and which one is better."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clickvol.adapt.cases import CaseObjects
from clickvol.evaluation.simulated_user import SimulatedUser, Truth
from clickvol.metrics.overlap import dice
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.click import Click
from clickvol.weights.load import LoadedModel

SCORED_CLICKS = (1, 3)
"""Numbers of clicks after which a mask is scored: one, and what a patient user gives."""

# What counts as better: so much more after one click, and hardly less after several.
_LEAST_GAIN = 0.01
_MOST_LOSS = 0.01


@dataclass(frozen=True, slots=True)
class Score:
    """One object, clicked by one simulated user.

    Attributes:
        case_id, patient, number: which object.
        dice: after each of `SCORED_CLICKS`.
    """

    case_id: str
    patient: str
    number: int
    dice: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScoredObject:
    """An object to score."""

    case: CaseObjects
    number: int


def chosen_objects(cases: Sequence[CaseObjects], count: int) -> list[ScoredObject]:
    """Return `count` objects to score, or all: patients in turn, each one's largest first."""
    by_patient: dict[str, list[ScoredObject]] = {}
    for case in cases:
        objects = [ScoredObject(case, n) for n in range(1, len(case.longest_mm) + 1)]
        by_patient.setdefault(case.patient, []).extend(objects)
    queues = [sorted(q, key=lambda o: -o.case.longest_mm[o.number - 1]) for q in by_patient.values()]
    rounds = range(max(len(queue) for queue in queues))
    order = [queue[number] for number in rounds for queue in queues if number < len(queue)]
    return sorted(order[:count], key=lambda o: (o.case.patient, o.case.case_id, o.number))


def score_objects(
    model: LoadedModel,
    objects: Sequence[ScoredObject],
    seed: int,
    *,
    clicks: tuple[int, ...] = SCORED_CLICKS,
    on_object: Callable[[int], None] = lambda _: None,
) -> list[Score]:
    """Click objects and score the answers.

    The first click is any voxel of the object, each further one the middle of the largest error; where nothing
    is wrong any more the score stays.

    Args:
        model: who answers.
        objects: in order; a scan is opened once for those that follow each other.
        seed: of the users.
        clicks: after which numbers of clicks is scored, rising.
        on_object: called with the number of objects that are done.
    """
    scores: list[Score] = []
    case, predictor = None, None
    for done, item in enumerate(objects, start=1):
        if predictor is None or item.case is not case:
            case, predictor = item.case, ScanPredictor(item.case.volume, model)
        truth = Truth.of(item.case.numbers == item.number)
        if truth is None:
            raise ValueError(f"{item.case.case_id} has no object {item.number}")
        scores.append(
            Score(
                item.case.case_id,
                item.case.patient,
                item.number,
                _dice_after(predictor, truth, f"{item.case.case_id}/{item.number}", seed, clicks),
            )
        )
        on_object(done)
    return scores


def _dice_after(
    predictor: ScanPredictor, truth: Truth, name: str, seed: int, numbers: tuple[int, ...]
) -> tuple[float, ...]:
    grid = predictor.volume.grid
    user = SimulatedUser(truth, grid, case_id=name, seed=seed, placement="random", next_clicks="error")
    mask = np.zeros(grid.shape_dhw, dtype=np.uint8)
    clicks: list[Click] = []
    values = []
    for number in range(1, numbers[-1] + 1):
        placed = user.first_click() if number == 1 else user.next_click(mask)
        if placed is not None:
            clicks.append(placed.click)
            mask = predictor.predict(clicks).mask.array
        if number in numbers:
            values.append(dice(mask, truth.array))
    return tuple(values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same objects, clicked by the same users, with the base and with models that had not seen them.

    Attributes:
        before, after: in the same order.
    """

    before: tuple[Score, ...]
    after: tuple[Score, ...]

    @classmethod
    def of(cls, before: Sequence[Score], after: Sequence[Score]) -> "Comparison":
        """Bring the scores after into the order of those before."""
        known = {(score.case_id, score.number): score for score in after}
        return cls(tuple(before), tuple(known[score.case_id, score.number] for score in before))

    @property
    def mean_after(self) -> float:
        """The mean Dice after, over all numbers of clicks."""
        return float(np.mean([self.mean(self.after, place) for place in range(len(self.after[0].dice))]))

    def row_elsewhere(self) -> dict[str, Any]:
        """Return the row for a card where these are synthetic tumours, clicked once."""
        return {
            "elsewhere": f"{len(self.before)} synthetic tumours of 20 to 150 mm, one random click",
            "mean_dice_before": round(self.mean(self.before, 0), 4),
            "mean_dice_after": round(self.mean(self.after, 0), 4),
        }

    def loss_elsewhere(self) -> str:
        """Say the same in a sentence."""
        row = self.row_elsewhere()
        return (
            f"On other objects ({row['elsewhere']}) mean Dice went from {row['mean_dice_before']:.3f} to "
            f"{row['mean_dice_after']:.3f}."
        )

    def mean(self, scores: Sequence[Score], place: int) -> float:
        """Return the mean Dice over patients of each patient's mean, for one number of clicks."""
        by_patient: dict[str, list[float]] = {}
        for score in scores:
            by_patient.setdefault(score.patient, []).append(score.dice[place])
        return float(np.mean([np.mean(values) for values in by_patient.values()]))

    def gain(self, place: int) -> float:
        """Return how much more Dice there is, for one number of clicks."""
        return self.mean(self.after, place) - self.mean(self.before, place)

    @property
    def is_better(self) -> bool:
        """Tell whether one click gains at least .01 and no number of clicks loses more than .01."""
        gains = [self.gain(place) for place in range(len(SCORED_CLICKS))]
        return gains[0] >= _LEAST_GAIN and min(gains) >= -_MOST_LOSS

    def rows(self) -> list[dict[str, Any]]:
        """Return the table for a card: one row per number of clicks, and one per object."""
        rows: list[dict[str, Any]] = [
            {
                "clicks": number,
                "mean_dice_before": round(self.mean(self.before, place), 4),
                "mean_dice_after": round(self.mean(self.after, place), 4),
                "objects": len(self.before),
                "objects_better": sum(
                    b.dice[place] < a.dice[place] for b, a in zip(self.before, self.after, strict=True)
                ),
                "patients": len({score.patient for score in self.before}),
                "protocol": "each patient by a model that has not seen it; one random click, then "
                "clicks in the largest error; whole scan; mean over patients",
            }
            for place, number in enumerate(SCORED_CLICKS)
        ]
        for b, a in zip(self.before, self.after, strict=True):
            dice_columns = {
                f"dice_{number}_{when}": round(score.dice[place], 4)
                for place, number in enumerate(SCORED_CLICKS)
                for when, score in (("before", b), ("after", a))
            }
            rows.append({"case": b.case_id, "object": b.number, **dice_columns})
        return rows


def as_content(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Return scores as plain values."""
    return [asdict(score) for score in scores]


def from_content(content: Sequence[dict[str, Any]]) -> tuple[Score, ...]:
    """Return the scores that `as_content` made plain."""
    return tuple(
        Score(str(c["case_id"]), str(c["patient"]), int(c["number"]), tuple(float(d) for d in c["dice"]))
        for c in content
    )

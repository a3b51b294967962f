"""What comes out of a segmentation, and how it came about."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Modality
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.placed_prompts import PromptUse
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Prompt
from clickvol.weights.expected_dice import DiceEstimate

Array32 = NDArray[np.float32]

Procedure = Literal["clickvol", "published"]
"""How a click becomes a mask: views of several sizes (`zoom_refinement.py`), or the one window of the released
test code (`published_window.py`)."""

THRESHOLD = 0.5
"""Probability above which a voxel belongs to the object."""

FAINT = 0.02
"""Below this probability nothing is worth computing."""


_DOUBT_MM = 10.0
_LEAST_DOUBT = 0.05


@dataclass(frozen=True, slots=True)
class FieldOfViewReport:
    """One view of the patient: its middle, its sides along superior, anterior and right, and why."""

    voxel_mm: float
    centre_ras_mm: tuple[float, float, float]
    extent_dhw_mm: tuple[float, float, float]
    reason: str

    @classmethod
    def of(cls, field_of_view: FieldOfView, reason: str) -> "FieldOfViewReport":
        """Describe a field of view."""
        centre = (field_of_view.centre.x, field_of_view.centre.y, field_of_view.centre.z)
        return cls(field_of_view.voxel_mm, centre, field_of_view.extent_mm, reason)


@dataclass(frozen=True, slots=True, eq=False)
class ScanProbability:
    """The probability of the object on the scan's grid.

    Attributes:
        box: part of the scan that was computed; the probability is 0 elsewhere.
        probability: (box shape) float32 in [0, 1].
        keeps_all_parts: the mask is all that is above the threshold, not only what is clicked.
        judged_field: the view that the whole object was seen in, for a score head; None for none.
    """

    box: VoxelBox
    probability: Array32
    views: tuple[FieldOfViewReport, ...]
    warnings: tuple[str, ...] = ()
    keeps_all_parts: bool = False
    judged_field: FieldOfView | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CandidateMask:
    """One of several masks of a scan; its Dice in [0, 1] is calibrated by the card."""

    packed: PackedMask
    grid: VolumeGrid
    predicted_dice: float

    @property
    def mask(self) -> Mask:
        """The mask on the grid of the scan, an array of its own at every call."""
        return Mask(self.packed.full(self.grid.shape_dhw).view(np.uint8), self.grid)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The object that was clicked.

    Attributes:
        mask: on the grid of the scan.
        seconds: time per stage: "prepare", "encode", "decode" and "paste".
        probability_box: part of the scan that probabilities were computed for.
        probability_in_box: (box shape) float32 in [0, 1]; 0 everywhere else.
        candidates: several masks for the same prompts, from which a person may choose, `mask` first; empty
            where the model has one.
        expected: the Dice of the mask with what is meant, calibrated; None where the model does not tell.
    """

    mask: Mask
    prompts: tuple[Prompt, ...]
    modality: Modality
    model_id: str
    procedure: Procedure
    fields_of_view: tuple[FieldOfViewReport, ...]
    seconds: dict[str, float]
    prompts_used: tuple[PromptUse, ...]
    warnings: tuple[str, ...]
    probability_box: VoxelBox
    probability_in_box: Array32
    candidates: tuple[CandidateMask, ...] = ()
    expected: DiceEstimate | None = None

    @property
    def expected_dice(self) -> float | None:
        """The Dice alone."""
        return None if self.expected is None else self.expected.dice

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks among the prompts."""
        return tuple(prompt for prompt in self.prompts if isinstance(prompt, Click))

    def probability(self) -> Array32:
        """Return the probability of the object in every voxel: (D, H, W) float32 in [0, 1]."""
        full = np.zeros(self.mask.grid.shape_dhw, dtype=np.float32)
        full[self.probability_box.slices] = self.probability_in_box
        return full

    def next_click(self) -> VoxelPoint | None:
        """Return where a further click would say most; None where nothing is uncertain."""
        place = most_uncertain(self.probability_in_box, self.mask.grid.spacing_dhw_mm)
        return None if place is None else VoxelPoint.of(np.add(place, self.probability_box.start_dhw))

    def bounding_box(self) -> VoxelBox | None:
        """Return the smallest box around the mask; None for an empty mask."""
        inner = bounding_box(self.mask.array[self.probability_box.slices])
        return None if inner is None else inner.shift(self.probability_box.start_dhw)


def most_uncertain(probability: Array32, spacing_dhw_mm: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Return the voxel (d, h, w) around which a probability (D, H, W) says least; None for nowhere."""
    doubt = 1 - np.abs(2 * probability - 1)
    # A place counts with what lies around it: a thin border is always in doubt, a blob is an error.
    size = np.maximum(1, 2 * np.floor(_DOUBT_MM / spacing_dhw_mm / 2).astype(int) + 1)
    around = ndimage.uniform_filter(doubt, size=tuple(size.tolist()), mode="constant")
    if around.max() < _LEAST_DOUBT:
        return None
    return tuple(int(i) for i in np.unravel_index(int(around.argmax()), around.shape))


def keep_clicked(mask: NDArray[np.bool_], clicks_dhw: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Keep the connected parts (26 neighbours) of a mask (D, H, W) that hold a click, else the nearest.

    Clicks (3,) are in voxels of the mask, and may lie outside the array; without any, everything is kept.
    """
    box = bounding_box(mask) if clicks_dhw else None
    if box is None:
        return mask
    parts, count = ndimage.label(mask[box.slices], structure=np.ones((3, 3, 3)))
    if count == 1:
        return mask
    last = np.array(mask.shape) - 1
    indices = [np.clip(np.rint(click), 0, last).astype(int) - box.start_dhw for click in clicks_dhw]
    within = [index for index in indices if ((index >= 0) & (index < parts.shape)).all()]
    hit = {int(parts[tuple(index)]) for index in within} - {0}
    if not hit:
        voxels = np.argwhere(parts)
        distances = ((voxels - indices[0]) ** 2).sum(axis=1)
        hit = {int(parts[tuple(voxels[distances.argmin()])])}
    kept = np.zeros_like(mask)
    kept[box.slices] = np.isin(parts, list(hit))
    return kept


@dataclass(slots=True)
class Stopwatch:
    """Seconds per stage, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage; stages inside the block count for themselves alone."""
        already = sum(self.seconds.values())
        started_at = time.perf_counter()
        yield
        spent = time.perf_counter() - started_at - (sum(self.seconds.values()) - already)
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass(frozen=True, slots=True)
class Stages:
    """Says which stage begins, and measures how long each takes."""

    on_stage: Callable[[str], None]
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Tell the title, and add the time of the block to a stage."""
        self.on_stage(title)
        with self.stopwatch.stage(name):
            yield

    def finish(self) -> dict[str, float]:
        """Return the seconds of each stage, and their sum as "total"."""
        return {**self.stopwatch.seconds, "total": sum(self.stopwatch.seconds.values())}

"""The worst, the median and the best case of a model, as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickvol.evaluation.records import ClickScore
from clickvol.files.atomic import atomic_path
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Volume
from clickvol.previews.preview import draw_preview
from clickvol.prompts.click import Click
from clickvol.report.series import main_placement


def choose_cases(scores: Sequence[ClickScore], *, model: str, data: str) -> dict[str, ClickScore]:
    """Return which cases to show of a model on a data set, by their Dice.

    Among the records of its first user, with the first placement there is and the largest number of clicks.
    Of equal scores the first by case name; the median of an even number is the lower one.

    Args:
        scores: all records.
        model: whose.
        data: on which data set.

    Returns:
        "worst", "median" and "best", in this order; fewer where there are fewer than three cases (two: worst
        and best, one: the median), none without records.
    """
    own = [s for s in scores if (s.model, s.data) == (model, data)]
    if not own:
        return {}
    placement = main_placement(own) or own[0].placement
    own = [s for s in own if s.placement == placement]
    seed, num_clicks = min(s.seed for s in own), max(s.num_clicks for s in own)
    last = [s for s in own if (s.seed, s.num_clicks) == (seed, num_clicks)]
    ranked = sorted(last, key=lambda s: (s.dice, s.case_id))
    if len(ranked) == 1:
        return {"median": ranked[0]}
    chosen = {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[-1]}
    if len(ranked) == 2:
        del chosen["median"]
    return chosen


def case_picture(
    volume: Volume,
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    path: Path,
    title: str,
    clicks: Sequence[Click] = (),
) -> None:
    """Write a picture of three planes through the tumour, with the outlines of truth and prediction.

    The planes are those in which the truth has its largest area, so they do not depend on what a model or a
    user did; without a truth, those in which the prediction has.

    Args:
        volume: the scan.
        truth: (D, H, W), non-zero in the tumour.
        prediction: (D, H, W), non-zero where a model found it.
        path: a PNG file; replaced.
        title: one line, such as model, case and Dice.
        clicks: shown where they are within 5 mm of a plane.

    Raises:
        ClickError: when a click is not in the scan.
        OutputError: when the file cannot be written.
    """
    picture = draw_preview(
        volume,
        (prediction != 0).astype(np.uint8),
        clicks,
        caption=title,
        truth=truth,
        through=_largest_slices(truth if truth.any() else prediction),
    )
    with atomic_path(path, ".png") as temporary:
        picture.save(temporary)


def _largest_slices(mask: NDArray[np.generic]) -> VoxelPoint:
    """Return where the slices with the most voxels of a mask meet; of equal ones the middle one."""
    middle = []
    for axis in range(3):
        areas = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))
        largest = np.flatnonzero(areas == areas.max())
        middle.append(float(largest[len(largest) // 2]))
    return VoxelPoint(*middle)

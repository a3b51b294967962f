"""What a series of clicks was worth: scores after 1, 2, ... clicks as one number."""

from collections.abc import Mapping
from itertools import pairwise

DICE_TO_REACH = 0.8
"""The Dice that "clicks to reach" asks for unless told otherwise (chosen: a usable first contour)."""


def clicks_to_reach(dice_by_clicks: Mapping[int, float], threshold: float = DICE_TO_REACH) -> int | None:
    """Return the first number of clicks with at least this Dice, 0 to 1; None where none reached it.

    Only numbers of clicks that were scored can be the answer, and a later click may lose it again.
    """
    return min((n for n, value in dice_by_clicks.items() if value >= threshold), default=None)


def click_curve_area(value_by_clicks: Mapping[int, float]) -> float:
    """Return the area under a score over the number of clicks, divided by the range of clicks.

    Trapezoids between the numbers of clicks that were scored, so the result is a mean of the score over the
    clicks and has its unit. One number of clicks has no range: its score. ValueError when there is no score at
    all.
    """
    if not value_by_clicks:
        raise ValueError("the click curve has no points; score at least one number of clicks")
    clicks = sorted(value_by_clicks)
    if len(clicks) == 1:
        return float(value_by_clicks[clicks[0]])
    area = sum((b - a) * (value_by_clicks[a] + value_by_clicks[b]) / 2 for a, b in pairwise(clicks))
    return float(area / (clicks[-1] - clicks[0]))

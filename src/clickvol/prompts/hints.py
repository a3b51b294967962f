"""The meanings of the maps on which prompts other than clicks are drawn for a network that knows them."""

from enum import IntEnum


class HintChannel(IntEnum):
    """Channels of the hint maps, each in [-1, 1], 0 where nothing is said."""

    SCRIBBLE = 0
    """1 on a scribble inside the object, -1 on one outside."""
    REGION = 1
    """1 inside a box or lasso, -1 outside it, on the slices it was drawn on."""
    DIAMETER = 2
    """1 on the longest diameter."""


NUM_HINTS = len(HintChannel)

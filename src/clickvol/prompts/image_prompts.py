"""What a user points at on a 2D image: clicks and a box, in the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.simulate2d import sample_points
from clickvol.shapes import FOREGROUND_LABEL


@dataclass(frozen=True, slots=True)
class ImageClick:
    """A point on an image.

    Attributes:
        column, row: in pixels, centres at integers, from 0.
        foreground: in the object or outside it.
    """

    column: float
    row: float
    foreground: bool = True


@dataclass(frozen=True, slots=True)
class ImagePrompts:
    """What is pointed at.

    Attributes:
        clicks: any number.
        box_xyxy_pixel: column and row of the first and of the last pixel, or None.
    """

    clicks: tuple[ImageClick, ...] = ()
    box_xyxy_pixel: tuple[float, float, float, float] | None = None


def check_prompts(prompts: ImagePrompts, shape_hw: tuple[int, int]) -> None:
    """Check that something is pointed at, and that all of it lies in an image of (H, W).

    Raises:
        ClickError: when not; the message has the valid range.
    """
    last_row, last_column = shape_hw[0] - 1, shape_hw[1] - 1
    valid = f"columns are 0 to {last_column} and rows 0 to {last_row}"
    if not prompts.clicks and prompts.box_xyxy_pixel is None:
        raise ClickError("nothing is pointed at; give at least one click or a box")
    for click in prompts.clicks:
        if not (0 <= click.column <= last_column and 0 <= click.row <= last_row):
            raise ClickError(f"the click {click.column:g},{click.row:g} is not in the image; its {valid}")
    if prompts.box_xyxy_pixel is None:
        return
    x0, y0, x1, y1 = prompts.box_xyxy_pixel
    if not (0 <= x0 <= x1 <= last_column and 0 <= y0 <= y1 <= last_row):
        raise ClickError(
            f"the box {x0:g},{y0:g},{x1:g},{y1:g} is not one in the image; give first column, first row, "
            f"last column, last row; its {valid}"
        )


def prompts_on_picture(clicks: Sequence[Click], grid: VolumeGrid) -> ImagePrompts:
    """Return clicks on a volume of one slice as clicks on the picture that it is."""
    places = [(grid.to_voxel(click.world(grid)).as_array(), click.foreground) for click in clicks]
    return ImagePrompts(tuple(ImageClick(float(w), float(h), inside) for (_, h, w), inside in places))


def prompts_of_truth(truth: NDArray[np.bool_], num_points: int, rng: np.random.Generator) -> ImagePrompts:
    """Draw points from a known mask (H, W), as `prompts.simulate2d.sample_points` says; for evaluation only.

    Raises:
        ClickError: for a mask without pixels, or fewer than one point.
    """
    points, labels = sample_points(truth, num_points, rng)
    clicks = tuple(
        ImageClick(float(x), float(y), foreground=bool(label == FOREGROUND_LABEL))
        for (x, y), label in zip(points, labels, strict=True)
    )
    return ImagePrompts(clicks=clicks)

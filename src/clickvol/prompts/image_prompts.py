"""What a user points at on a 2D image: clicks and a box, in the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.simulate import sample_points
from clickvol.shapes import FOREGROUND_LABEL


@dataclass(frozen=True, slots=True)
class ImageClick:
    """A point on an image, in pixels, centres at integers, from 0; in the object or outside it."""

    column: float
    row: float
    foreground: bool = True


@dataclass(frozen=True, slots=True)
class ImagePrompts:
    """What is pointed at: clicks, and a box by column and row of its first and of its last pixel, or None."""

    clicks: tuple[ImageClick, ...] = ()
    box_xyxy_pixel: tuple[float, float, float, float] | None = None


def check_prompts(prompts: ImagePrompts, shape_hw: tuple[int, int]) -> None:
    """Refuse prompts that point at nothing, or at something outside an image of (H, W) (ClickError)."""
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
    """Draw points from a known mask (H, W), as `simulate.sample_points` says; for evaluation only."""
    points, labels = sample_points(truth, num_points, rng)
    clicks = tuple(
        ImageClick(float(x), float(y), foreground=bool(label == FOREGROUND_LABEL))
        for (x, y), label in zip(points, labels, strict=True)
    )
    return ImagePrompts(clicks=clicks)

"""The text form of clicks and boxes, as the command line and the manifest of a batch have it."""

import math
from pathlib import Path
from typing import Literal

from clickvol.errors import ClickError
from clickvol.prompts.click import Click, Space
from clickvol.prompts.drawing_files import DrawingFile
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts
from clickvol.prompts.spatial import Box, Line, Position


def parse_click(text: str, *, space: Space) -> Click:
    """Parse `I,J,K`, with `:-` behind it for a background click (`:+` is the default), as in "-12.5,30,4:-".

    ClickError when the text is not three finite numbers.
    """
    (first, second, third), foreground = _signed_numbers(text, 3, "120,88,41 (120,88,41:- on the background)")
    return Click.at((first, second, third), space=space, foreground=foreground)


def parse_clicks(texts: list[str], *, space: Space) -> tuple[Click, ...]:
    """Parse all clicks on one object; an automatic model needs none; ClickError when one cannot be read."""
    return tuple(parse_click(text, space=space) for text in texts)


def parse_line(text: str, *, space: Space) -> Line:
    """Parse both ends of the longest diameter, `I,J,K:I,J,K`; ClickError when the text is not two places."""
    return Line(*_two_places("line", text, space))


def parse_box(text: str, *, space: Space) -> Box:
    """Parse two opposite corners of a box, `I,J,K:I,J,K`, with `:-` for what does not belong (ClickError)."""
    corners, foreground = _signed(text.strip())
    return Box(*_two_places("box", corners, space), foreground)


def parse_drawing(kind: Literal["scribble", "lasso", "mask"], text: str, *, space: Space) -> DrawingFile:
    """Parse a file's name, with `:-` for what does not belong; ClickError for a mask of that."""
    name, foreground = _signed(text)
    if kind == "mask" and not foreground:
        raise ClickError("a mask to correct is the object; give what it is not as a lasso or a click")
    return DrawingFile(kind, Path(name), foreground, space)


def parse_lines_and_boxes(lines: list[str], boxes: list[str], *, space: Space) -> tuple[Line | Box, ...]:
    """Parse all lines and boxes on one object."""
    parsed = [parse_line(text, space=space) for text in lines]
    return (*parsed, *(parse_box(text, space=space) for text in boxes))


def parse_drawings(
    scribbles: list[str], lassos: list[str], mask: str | None, *, space: Space
) -> tuple[DrawingFile, ...]:
    """Parse the names of all files with drawings of one object."""
    parsed = [parse_drawing("scribble", text, space=space) for text in scribbles]
    parsed += [parse_drawing("lasso", text, space=space) for text in lassos]
    return (*parsed, *([] if mask is None else [parse_drawing("mask", mask, space=space)]))


def parse_image_prompts(clicks: list[str], box: str | None) -> ImagePrompts:
    """Parse what points at the object in a 2D image; ClickError when one cannot be read.

    Clicks are `COLUMN,ROW`, with `:-` behind it on the background, such as "120,88"; a box has first column and
    row, last column and row, such as "100,70,140,110".
    """
    parsed = [_signed_numbers(text, 2, "120,88 (120,88:- on the background)") for text in clicks]
    points = tuple(ImageClick(column, row, foreground) for (column, row), foreground in parsed)
    if box is None:
        return ImagePrompts(points)
    x0, y0, x1, y1 = _numbers("box", box, 4, "100,70,140,110")
    return ImagePrompts(points, (x0, y0, x1, y1))


def _two_places(what: str, text: str, space: Space) -> tuple[Position, Position]:
    parts = text.split(":")
    if len(parts) != 2:
        raise ClickError(f"cannot read the {what} {text!r}; give two places, such as 120,88,41:140,110,41")
    places = []
    for part in parts:
        a, b, c = _numbers(what, part, 3, "120,88,41:140,110,41")
        places.append(Click.at((a, b, c), space=space).position)
    return places[0], places[1]


def _signed_numbers(text: str, count: int, example: str) -> tuple[list[float], bool]:
    unsigned, foreground = _signed(text.strip())
    return _numbers("click", unsigned, count, example), foreground


def _signed(text: str) -> tuple[str, bool]:
    """Return a text without the sign behind it, and whether that says the object."""
    return text.removesuffix(":-").removesuffix(":+"), not text.endswith(":-")


def _numbers(what: str, text: str, count: int, example: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ClickError(
            f"cannot read the {what} {text!r}; give {count} finite numbers with commas and no spaces, such as "
            f"{example}"
        )
    return numbers

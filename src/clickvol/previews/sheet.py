"""How a preview looks: panels with outline, clicks, letters and scale, on one sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

_Rgb = tuple[int, int, int]
MarkKind = Literal["click", "line", "box"]

PANEL_PIXELS = 420
DISCLAIMER = "Research use only, not a medical device"

# Outlines and crosses are drawn this much larger and then reduced, so that their edges are smooth.
_OVERSAMPLING = 3
_GAP_PIXELS = 10
_TOP_PIXELS = 40
_BOTTOM_PIXELS = 34

_SHEET: _Rgb = (16, 18, 22)
_OUTSIDE_SCAN: _Rgb = (30, 33, 39)
_TEXT: _Rgb = (226, 230, 236)
FAINT_TEXT: _Rgb = (146, 154, 166)
OUTLINE: _Rgb = (255, 170, 28)
_TRUTH: _Rgb = (92, 190, 255)
FOREGROUND: _Rgb = (64, 226, 160)
BACKGROUND: _Rgb = (255, 84, 112)
SHADOW: _Rgb = (0, 0, 0)

_SCALE_BARS_MM = (5, 10, 20, 50, 100, 200)


@dataclass(slots=True, eq=False)
class PanelPicture:
    """A square picture of one plane in the making, of (SAMPLES, SAMPLES): grey from 0 to 1, and masks."""

    SAMPLES: ClassVar[int] = PANEL_PIXELS * _OVERSAMPLING

    grey: NDArray[np.floating]
    inside: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None = None
    _image: Image.Image | None = None

    def mark(self, kind: MarkKind, corners: Sequence[tuple[float, float]], *, foreground: bool) -> None:
        """Draw a prompt: a cross with an open middle, so that the clicked voxel stays visible; a line; a box.

        The corners are the click, the ends, or two opposite corners, columns and rows in pixels of the panel. A
        cross on what does not belong to the object is turned by 45 degrees.
        """
        self._image = self._image or self._paint()
        draw = ImageDraw.Draw(self._image)
        ends = np.array(corners) * _OVERSAMPLING
        for colour, width, longer in ((SHADOW, 4.4, 1.0), (FOREGROUND if foreground else BACKGROUND, 2.4, 0.0)):
            thick = round(width * _OVERSAMPLING)
            if kind == "box":
                low, high = ends.min(axis=0), ends.max(axis=0)
                draw.rectangle((*low.tolist(), *high.tolist()), outline=colour, width=thick)
                continue
            strokes = [ends] if kind == "line" else _cross(ends[0], longer, turned=not foreground)
            for stroke in strokes:
                draw.line([(float(p[0]), float(p[1])) for p in stroke], fill=colour, width=thick)

    def finish(self, name: str, letters: str, side_mm: float) -> Image.Image:
        """Reduce to the final size; write the name, the patient's directions and a scale bar on it."""
        image = (self._image or self._paint()).resize((PANEL_PIXELS,) * 2, Image.Resampling.BOX)
        draw = ImageDraw.Draw(image)
        middle, far = PANEL_PIXELS // 2, PANEL_PIXELS - 10
        places = {"lm": (10, middle), "rm": (far, middle), "mt": (middle, 9), "mb": (middle, far)}
        for letter, (anchor, place) in zip(letters, places.items(), strict=True):
            _write(draw, place, letter, 17, _TEXT, anchor)
        _write(draw, (10, 9), name, 14, _TEXT, "lt")
        _draw_scale(draw, side_mm)
        return image

    def _paint(self) -> Image.Image:
        levels = (self.grey * 255).astype(np.uint8)
        picture = np.repeat(levels[:, :, None], 3, axis=2)
        picture[~self.covered] = _OUTSIDE_SCAN
        inside = self.inside & self.covered
        # The line lies on the object's last voxels, between two darkened seams.
        depth = ndimage.binary_erosion(inside, iterations=2 * _OVERSAMPLING, border_value=1)
        outer = ndimage.binary_dilation(inside, iterations=_OVERSAMPLING)
        core = ndimage.binary_erosion(depth, iterations=_OVERSAMPLING, border_value=1)
        seam = outer & ~core & self.covered
        picture[seam] = (picture[seam] * 0.55).astype(np.uint8)
        picture[inside & ~depth] = OUTLINE
        if self.truth is not None:
            # Around the object, where the mask's line is in it: where both agree, both are seen. So wide
            # that it covers a whole pixel of the final size, wherever it lies.
            around = ndimage.binary_dilation(self.truth, iterations=2 * _OVERSAMPLING - 1)
            picture[around & ~self.truth & self.covered] = _TRUTH
        return Image.fromarray(picture)


def _cross(centre: NDArray[np.float64], longer: float, *, turned: bool) -> list[NDArray[np.float64]]:
    """Return the four arms of a cross with an open middle, each by its ends, in pixels before reduction."""
    arms = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    if turned:
        arms = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]]) * np.sqrt(0.5)
    return [np.stack([centre + arm * _OVERSAMPLING * r for r in (4.5 - longer, 12.0 + longer)]) for arm in arms]


def compose_sheet(panels: Sequence[Image.Image], caption: str, *, with_truth: bool = False) -> Image.Image:
    """Put finished panels side by side under a caption of one line; says that this is for research use only."""
    step = PANEL_PIXELS + _GAP_PIXELS
    width = _GAP_PIXELS + step * len(panels)
    sheet = Image.new("RGB", (width, _TOP_PIXELS + PANEL_PIXELS + _BOTTOM_PIXELS), _SHEET)
    for number, panel in enumerate(panels):
        sheet.paste(panel, (_GAP_PIXELS + step * number, _TOP_PIXELS))
    draw = ImageDraw.Draw(sheet)
    top, bottom = _TOP_PIXELS // 2, sheet.height - _BOTTOM_PIXELS // 2
    _write(draw, (_GAP_PIXELS + 2, top), caption, 16, _TEXT, "lm")
    _write(draw, (_GAP_PIXELS + 2, bottom), DISCLAIMER, 14, FAINT_TEXT, "lm")
    _draw_legend(draw, width - _GAP_PIXELS - 2, bottom, with_truth=with_truth)
    return sheet


def _draw_legend(draw: ImageDraw.ImageDraw, right: int, middle: int, *, with_truth: bool) -> None:
    clicks = (("prompt", FOREGROUND), ("on the background", BACKGROUND))
    outlines = (("mask", OUTLINE), ("truth", _TRUTH)) if with_truth else (("outline", OUTLINE),)
    entries = (*outlines, *clicks)
    for label, colour in reversed(entries):
        _write(draw, (right, middle), label, 14, FAINT_TEXT, "rm")
        right -= round(draw.textlength(label, font=ImageFont.load_default(14))) + 8
        draw.rounded_rectangle((right - 14, middle - 2, right, middle + 1), 1, fill=colour)
        right -= 34


def _draw_scale(draw: ImageDraw.ImageDraw, side_mm: float) -> None:
    """Draw a bar of a round length, about a quarter of the side."""
    length_mm = max((v for v in _SCALE_BARS_MM if v <= 0.3 * side_mm), default=_SCALE_BARS_MM[0])
    length = round(length_mm / side_mm * PANEL_PIXELS)
    left, low = 12, PANEL_PIXELS - 14
    for colour, grow in ((SHADOW, 1), (_TEXT, 0)):
        draw.rectangle((left - grow, low - 1 - grow, left + length + grow, low + grow), fill=colour)
        for end in (left, left + length):
            draw.rectangle((end - grow, low - 5 - grow, end + grow, low + grow), fill=colour)
    _write(draw, (left, low - 9), f"{length_mm} mm", 13, _TEXT, "lb")


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: _Rgb,
    anchor: str,
) -> None:
    draw.text(
        place,
        text,
        fill=colour,
        font=ImageFont.load_default(size),
        anchor=anchor,
        stroke_width=1,
        stroke_fill=SHADOW,
    )

"""A picture of a 2D segmentation: the image, the outline, and what was pointed at."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from clickvol.previews.sheet import BACKGROUND, DISCLAIMER, FAINT_TEXT, FOREGROUND, OUTLINE, SHADOW
from clickvol.prompts.image_prompts import ImagePrompts

# Small images are enlarged in whole steps until their longer side has so many pixels. Chosen for a screen.
_WANTED_SIDE_PIXELS = 768

_FOOT_PIXELS = 26


def draw_image_preview(
    image: NDArray[np.generic], mask: NDArray[np.bool_], prompts: ImagePrompts
) -> Image.Image:
    """Draw the outline of a mask (H, W), the clicks and the box on an image; a line below says what it is for.

    The image is (H, W) or (H, W, 3), uint8 or floating point in 0..1; each of its pixels is a square of whole
    pixels. Crosses in the object are green, beside it red and turned.
    """
    scale = max(1, _WANTED_SIDE_PIXELS // max(mask.shape))
    levels = image if image.dtype == np.uint8 else np.rint(image.astype(np.float32) * 255)
    colours = np.broadcast_to(levels if image.ndim == 3 else levels[..., None], (*mask.shape, 3))
    picture = np.kron(colours.astype(np.uint8), np.ones((scale, scale, 1), np.uint8))
    inside = np.kron(mask, np.ones((scale, scale), bool))
    # The line lies on the object's outermost pixels and covers less than one of a small image.
    core = ndimage.binary_erosion(inside, iterations=max(1, scale // 2), border_value=1)
    picture[inside & ~core] = OUTLINE
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    if prompts.box_xyxy_pixel is not None:
        x0, y0, x1, y1 = prompts.box_xyxy_pixel
        # The box ends where its last pixel ends.
        corners = (x0 * scale, y0 * scale, (x1 + 1) * scale - 1, (y1 + 1) * scale - 1)
        draw.rectangle(corners, outline=FOREGROUND, width=2)
    for click in prompts.clicks:
        centre = ((click.column + 0.5) * scale, (click.row + 0.5) * scale)
        _draw_cross(draw, centre, foreground=click.foreground)
    return _with_foot(drawn)


def _with_foot(drawn: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (drawn.width, drawn.height + _FOOT_PIXELS), SHADOW)
    sheet.paste(drawn, (0, 0))
    place = (8, drawn.height + _FOOT_PIXELS // 2)
    font = ImageFont.load_default(14)
    ImageDraw.Draw(sheet).text(place, DISCLAIMER, fill=FAINT_TEXT, font=font, anchor="lm")
    return sheet


def _draw_cross(draw: ImageDraw.ImageDraw, centre_xy: tuple[float, float], *, foreground: bool) -> None:
    x, y = centre_xy
    for colour, width, reach in ((SHADOW, 4, 9.0), (None, 2, 8.0)):
        turned = reach * 0.7
        arms = (
            ((x - reach, y, x + reach, y), (x, y - reach, x, y + reach))
            if foreground
            else (
                (x - turned, y - turned, x + turned, y + turned),
                (x - turned, y + turned, x + turned, y - turned),
            )
        )
        for arm in arms:
            draw.line(arm, fill=colour or (FOREGROUND if foreground else BACKGROUND), width=width)

import numpy as np

from clickvol.previews.preview2d import draw_image_preview
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts

ORANGE, GREEN, RED = (255, 170, 28), (64, 226, 160), (255, 84, 112)
SCALE = 768 // 32


def result(picture, colour):
    """Rows and columns, in pixels of the image, where a colour is."""
    places = np.argwhere((np.asarray(picture) == colour).all(axis=2))
    return places.min(axis=0) // SCALE, places.max(axis=0) // SCALE


def test_the_outline_lies_on_the_masks_own_pixels():
    mask = np.zeros((16, 32), bool)
    mask[3:7, 20:30] = True
    picture = draw_image_preview(np.zeros((16, 32), np.float32), mask, ImagePrompts())
    assert picture.size[0] == 768
    low, high = result(picture, ORANGE)
    assert low.tolist() == [3, 20]
    assert high.tolist() == [6, 29]
    # It is an outline: the middle stays visible.
    assert picture.getpixel((25 * SCALE, 5 * SCALE)) == (0, 0, 0)


def test_clicks_and_box_lie_where_they_were_given():
    image = np.full((16, 32, 3), 100, np.uint8)
    prompts = ImagePrompts((ImageClick(28, 2, foreground=False),), (4, 5, 9, 12))
    picture = draw_image_preview(image, np.zeros((16, 32), bool), prompts)
    low, high = result(picture, GREEN)
    assert (low.tolist(), high.tolist()) == ([5, 4], [12, 9])
    low, high = result(picture, RED)
    assert (low.tolist(), high.tolist()) == ([2, 28], [2, 28])
    assert picture.getpixel((0, 0)) == (100, 100, 100)

"""Folders of pictures and masks as they come: coloured ellipses on a dark ground, one per picture."""

import numpy as np
from PIL import Image


def ellipse(seed, shape_hw=(48, 64)):
    """Return a picture (H, W, 3) uint8 and its mask (H, W) bool."""
    rng = np.random.default_rng(seed)
    h, w = shape_hw
    row, column = np.mgrid[:h, :w]
    middle, radii = rng.uniform(0.35, 0.65, 2) * shape_hw, rng.uniform(0.15, 0.3, 2) * shape_hw
    mask = ((row - middle[0]) / radii[0]) ** 2 + ((column - middle[1]) / radii[1]) ** 2 < 1
    colours = np.where(mask[..., None], (200, 90, 80), (60, 40, 50)) + rng.integers(-20, 20, (h, w, 3))
    return colours.astype(np.uint8), mask


def write_pictures(folder, names, *, first_seed=0, suffix=".png", mask_suffix=".png"):
    """Write images/ and masks/ with these names; return both folders."""
    images, masks = folder / "images", folder / "masks"
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture, mask = ellipse(first_seed + number)
        Image.fromarray(picture).save(images / f"{name}{suffix}")
        Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{name}{mask_suffix}")
    return images, masks

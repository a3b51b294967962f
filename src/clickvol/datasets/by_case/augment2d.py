"""Augmentations of one image, grey or coloured, as pure functions of a generator.

Which changes there are, how often and how strong they are is the released ProMISe-2D code's
(`datasets.sampling.SliceSampling`). Numbers given here are not stated in the sources: they are chosen mild. The
released choice between CLAHE, sharpening, JPEG and noise has no CLAHE here: slices come windowed. Colours keep
their balance: all of them are changed alike, but for noise.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from clickvol.datasets.sampling import SliceSampling

_Array32 = NDArray[np.float32]

# Standard deviation of the blur in pixels, and of what sharpening takes away.
_BLUR_PIXEL = (0.5, 1.5)
_SHARPENING = (0.2, 0.5)
_NOISE = (0.01, 0.05)
_JPEG_QUALITY = (60, 95)

# Squares that are blotted out: the most of them, and their side as part of the image's longer side.
_MAX_HOLES = 8
_HOLE_SIDE = 1 / 32


def moved(
    image: _Array32, mask: NDArray[np.bool_], config: SliceSampling, rng: np.random.Generator
) -> tuple[_Array32, NDArray[np.bool_]]:
    """Crop, flip, shift, scale and turn an image and its mask alike, in one interpolation.

    What comes from outside the image is 0, and no object.

    Args:
        image: (H, W) or (H, W, 3) in 0..1.
        mask: (H, W).
        config: how often, how much.
        rng: source of the randomness.
    """
    shape = np.array(mask.shape)
    # From the new place to the old one, in pixels (row, column) from the middle.
    change, start = np.eye(2), np.zeros(2)
    if rng.random() < config.crop_share:
        side = np.sqrt(rng.uniform(*config.crop))
        change, start = change * side, rng.uniform(-0.5, 0.5, 2) * (1 - side) * shape
    change = change @ np.diag(np.where(rng.random(2) < config.flip_share, -1.0, 1.0))
    if rng.random() < config.move_share:
        angle = np.deg2rad(rng.uniform(-1, 1) * config.rotation_degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        change = change @ turn / (1 + rng.uniform(-1, 1) * config.scale)
        start = start - change @ (rng.uniform(-1, 1, 2) * config.shift * shape)
    if np.array_equal(change, np.eye(2)) and not start.any():
        return image, mask
    middle = (shape - 1) / 2
    offset = middle + start - change @ middle

    def placed(values: _Array32) -> _Array32:
        return np.asarray(ndimage.affine_transform(values, change, offset, order=1), np.float32)

    planes = [image] if image.ndim == 2 else list(np.moveaxis(image, 2, 0))
    moved_image = np.stack([placed(plane) for plane in planes], axis=-1).reshape(image.shape)
    return np.clip(moved_image, 0, 1), placed(mask.astype(np.float32)) > 0.5


def spoiled(image: _Array32, config: SliceSampling, rng: np.random.Generator) -> _Array32:
    """Blur an image, change contrast and grain, blot parts out: (H, W) or (H, W, 3) in 0..1 -> the same."""
    if rng.random() < config.blur_share:
        image = ndimage.gaussian_filter(image, rng.uniform(*_BLUR_PIXEL), axes=(0, 1))
    if rng.random() < config.contrast_share:
        stretch, shift = rng.uniform(-1, 1, 2) * config.contrast
        image = np.clip(image * (1 + stretch) + shift, 0, 1)
    if rng.random() < config.grain_share:
        change = (_sharpened, _noisy, _packed)[rng.integers(3)]
        image = np.clip(change(image, rng), 0, 1)
    if rng.random() < config.dropout_share:
        image = _blotted(image, rng)
    return np.ascontiguousarray(image, dtype=np.float32)


def _sharpened(image: _Array32, rng: np.random.Generator) -> _Array32:
    edges = image - ndimage.gaussian_filter(image, 1.0, axes=(0, 1))
    return np.asarray(image + rng.uniform(*_SHARPENING) * edges, np.float32)


def _noisy(image: _Array32, rng: np.random.Generator) -> _Array32:
    noise = rng.standard_normal(image.shape, np.float32)
    return np.asarray(image + rng.uniform(*_NOISE) * noise, np.float32)


def _packed(image: _Array32, rng: np.random.Generator) -> _Array32:
    """Return what JPEG leaves of an image."""
    low, high = _JPEG_QUALITY
    file = io.BytesIO()
    levels = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(levels).save(file, "JPEG", quality=int(rng.integers(low, high, endpoint=True)))
    with Image.open(file) as unpacked:
        return np.asarray(unpacked, np.float32) / np.float32(255)


def _blotted(image: _Array32, rng: np.random.Generator) -> _Array32:
    spotted = image.copy()
    side = max(1, round(max(image.shape[:2]) * _HOLE_SIDE))
    for _ in range(int(rng.integers(1, _MAX_HOLES, endpoint=True))):
        row, column = rng.integers(0, image.shape[:2])
        spotted[row : row + side, column : column + side] = 0
    return spotted

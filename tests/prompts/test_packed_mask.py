"""Masks in little memory."""

import numpy as np
import pytest

from clickvol.geometry.box import VoxelBox
from clickvol.prompts.packed_mask import EMPTY, PackedMask


def test_a_mask_comes_back():
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    mask[1, 2, 3] = mask[3, 4, 6] = mask[2, 2, 5] = 1
    packed = PackedMask.of(mask)
    assert packed.box == VoxelBox((1, 2, 3), (4, 5, 7))
    assert packed.num_voxels == 3
    assert packed.places().tolist() == [[1, 2, 3], [2, 2, 5], [3, 4, 6]]
    canvas = np.zeros_like(mask)
    packed.paint(canvas, 1)
    np.testing.assert_array_equal(canvas, mask)


def test_painting_leaves_what_is_not_object():
    packed = PackedMask.of(np.eye(3, dtype=np.uint8)[None])
    canvas = np.full((1, 3, 3), 7, dtype=np.uint8)
    packed.paint(canvas, 2)
    assert canvas[0].tolist() == [[2, 7, 7], [7, 2, 7], [7, 7, 2]]


def test_an_empty_mask_is_the_empty_one():
    assert PackedMask.of(np.zeros((2, 2, 2))) == EMPTY
    assert (EMPTY.in_box().shape, EMPTY.places().shape) == ((0, 0, 0), (0, 3))
    canvas = np.ones((2, 2, 2))
    EMPTY.paint(canvas, 5)
    assert (canvas == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_any_mask_comes_back(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 20, size=3)) < 0.3
    canvas = np.zeros(mask.shape, dtype=bool)
    PackedMask.of(mask).paint(canvas, True)
    np.testing.assert_array_equal(canvas, mask)


def test_a_tumour_takes_some_kilobytes():
    places = np.mgrid[:100, :100, :100] - 50
    ball = (places**2).sum(axis=0) < 45**2
    assert len(PackedMask.of(ball).bits) < 30_000


@pytest.mark.parametrize("seed", range(8))
def test_what_others_hold_is_left_out(seed):
    """Also where boxes overlap in part, not at all, or hold nothing."""
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(4):
        mask = np.zeros((7, 8, 9), dtype=bool)
        start, length = generator.integers(0, 6, size=3), generator.integers(0, 5, size=3)
        d, h, w = (slice(a, a + n) for a, n in zip(start, length, strict=True))
        mask[d, h, w] = generator.random(mask[d, h, w].shape) < 0.7
        masks.append(mask)
    packed = PackedMask.of(masks[0]).without(PackedMask.of(mask) for mask in masks[1:])
    expected = masks[0] & ~np.any(masks[1:], axis=0)
    assert packed == PackedMask.of(expected)
    canvas = np.zeros(expected.shape, dtype=bool)
    packed.paint(canvas, True)
    np.testing.assert_array_equal(canvas, expected)


def test_a_mask_of_which_a_box_holds_all_is_packed_in_its_place():
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    mask[1, 2:4, 3] = mask[3, 4, 6] = 1
    assert PackedMask.of(mask, within=VoxelBox((1, 1, 2), (4, 6, 7))) == PackedMask.of(mask)
    assert PackedMask.of(mask, within=VoxelBox((0, 0, 0), (1, 6, 7))) == EMPTY

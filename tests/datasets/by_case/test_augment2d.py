import numpy as np
import pytest

from clickvol.datasets.by_case.augment2d import moved, spoiled
from clickvol.datasets.sampling import SliceSampling

SHAPE_HW = (40, 56)
NOTHING = SliceSampling(kind="slices").without_changes()


def only(**shares):
    return NOTHING.model_copy(update=shares)


@pytest.fixture
def image():
    """A bright box off the middle, on dark grey."""
    values = np.full(SHAPE_HW, 0.25, np.float32)
    values[8:20, 30:44] = 0.75
    return values


def both(image, config, seed):
    return moved(image, image > 0.5, config, np.random.default_rng(seed))


def test_without_changes_nothing_changes(image):
    for seed in range(5):
        same, mask = both(image, NOTHING, seed)
        assert np.array_equal(same, image)
        assert np.array_equal(mask, image > 0.5)
        assert np.array_equal(spoiled(image, NOTHING, np.random.default_rng(seed)), image)


def test_flips_are_exact_and_of_either_axis(image):
    wanted = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    seen = set()
    for seed in range(24):
        flipped, mask = both(image, only(flip_share=0.5), seed)
        which = [n for n, one in enumerate(wanted) if np.allclose(flipped, one, atol=1e-5)]
        assert len(which) == 1
        assert np.array_equal(mask, wanted[which[0]] > 0.5)
        seen |= set(which)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "shares",
    [{"crop_share": 1.0, "crop": (0.5, 0.8)}, {"move_share": 1.0}, {"flip_share": 1.0}],
)
def test_image_and_mask_move_together(image, shares):
    for seed in range(6):
        changed, mask = both(image, only(**shares), seed)
        assert changed.shape == mask.shape == SHAPE_HW
        assert not np.array_equal(changed, image)
        # Along edges the two interpolate apart.
        assert np.mean((changed > 0.5) != mask) < 0.01
        assert mask.any()


def test_a_crop_enlarges_and_a_large_crop_shrinks(image):
    area = (image > 0.5).sum()
    smaller = [both(image, only(crop_share=1.0, crop=(1.5, 1.5)), seed)[1].sum() for seed in range(4)]
    assert np.allclose(smaller, area / 1.5, rtol=0.15)
    # A plain image without border: everything in it is still inside.
    plain = np.ones(SHAPE_HW, np.float32)
    assert both(plain, only(crop_share=1.0, crop=(0.9, 0.9)), 0)[0].min() == pytest.approx(1, abs=1e-5)
    assert both(plain, only(crop_share=1.0, crop=(1.5, 1.5)), 0)[0].min() == 0


def test_a_turn_keeps_the_size_of_the_object():
    disc = np.hypot(*np.mgrid[-20:21, -20:21]) < 8
    for seed in range(4):
        config = only(move_share=1.0, shift=0.0, scale=0.0)
        _, mask = moved(disc.astype(np.float32), disc, config, np.random.default_rng(seed))
        assert mask.sum() == pytest.approx(disc.sum(), rel=0.06)


@pytest.mark.parametrize("share", ["blur_share", "contrast_share", "grain_share", "dropout_share"])
def test_every_spoiling_changes_the_values_and_keeps_their_range(image, share):
    for seed in range(8):
        changed = spoiled(image, only(**{share: 1.0}), np.random.default_rng(seed))
        assert changed.shape == SHAPE_HW
        assert changed.dtype == np.float32
        assert not np.array_equal(changed, image)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert np.abs(changed - image).mean() < 0.18


def test_holes_are_black_and_few(image):
    changed = spoiled(image, only(dropout_share=1.0), np.random.default_rng(0))
    assert set(np.unique(changed[changed != image]).tolist()) == {0.0}
    assert (changed != image).sum() <= 8 * 2 * 2


def test_contrast_is_one_line_for_all_pixels(image):
    changed = spoiled(image, only(contrast_share=1.0), np.random.default_rng(3))
    assert len(np.unique(changed)) == 2
    slope = (changed.max() - changed.min()) / 0.5
    assert 0.9 <= slope <= 1.1

import numpy as np
import pytest
import torch

from clickvol.datasets.by_case.published_samples import draw_published_sample
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import PublishedSampling
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import IntensityScale
from reference.labelled import block_case

SHAPE = (24, 28, 32)
PLAIN = {
    "kind": "published",
    "voxel_mm": 2.0,
    "shift_share": 0.0,
    "rotation_share": 0.0,
    "zoom_share": 0.0,
    "flip_share": 0.0,
    "quarter_turn_share": 0.0,
    "foreground_share": 1.0,
    "border": "overhang",
}


@pytest.fixture
def case():
    """Values 0 and 1000; the scale maps them to -5 and 5."""
    made = block_case()
    object.__setattr__(made, "scale", IntensityScale(0.0, 1000.0, 500.0, 100.0, 0.0))
    return made


def draw(case, seed=0, shape=SHAPE, **change):
    config = PublishedSampling.model_validate(PLAIN | change)
    return draw_published_sample(case, shape, config, np.random.default_rng(seed))


def volume_voxels(sample):
    return int(sample.label.sum())


def test_a_patch_is_normalised_and_zero_outside_the_scan(case):
    sample = draw(case, shape=(96, 96, 96))
    values = sample.patch.unique()
    assert sample.patch.shape == (1, 1, 96, 96, 96)
    assert (values == 0).any()
    assert (values.min(), values.max()) == (-5, 5)
    assert (sample.patch[sample.label.bool()] > 0).float().mean() > 0.95
    assert (sample.prompts.labels == -1).all()
    # 24 x 20 x 28 mm in voxels of 2 mm.
    assert volume_voxels(sample) == pytest.approx(24 * 20 * 28 / 8, rel=0.1)


def test_two_thirds_of_the_patches_are_around_the_object(case):
    centres = [
        bool(draw(case, seed, (5, 5, 5), foreground_share=2 / 3, jitter_voxels=0).label[0, 0, 2, 2, 2])
        for seed in range(300)
    ]
    assert np.mean(centres) == pytest.approx(2 / 3, abs=0.08)


def test_the_jitter_moves_the_object_by_whole_voxels_up_to_its_bound(case):
    still = [draw(case, seed, (5, 5, 5), jitter_voxels=0).label[0, 0, 2, 2, 2] for seed in range(20)]
    assert all(still)
    moved = [draw(case, seed, (81, 81, 81), jitter_voxels=13) for seed in range(30)]
    places = np.array([np.argwhere(s.label[0, 0].numpy()).mean(axis=0) for s in moved])
    # Up to 13 either way by the jitter, and some by which voxel was taken.
    assert (np.ptp(places, axis=0) > 18).all()
    assert (np.abs(places - 40) < 13 + 12).all()


def _axial_case(voxel=(2, 3, 4)):
    """A CT of 30 x 80 x 90 voxels of 2 mm; the object is one voxel."""
    label = np.zeros((30, 80, 90), np.uint8)
    label[voxel] = 1
    places = np.indices(label.shape).astype(np.float32)
    array = places[0] + 100 * places[1] + 10000 * places[2]
    grid = VolumeGrid.axial(label.shape, (2.0, 2.0, 2.0))
    made = LabelledVolume.of(Volume(array, grid, "CT"), label)
    object.__setattr__(made, "scale", IntensityScale(0.0, 1e6, 0.0, 1.0, 0.0))
    return made


@pytest.mark.parametrize(
    ("voxel", "d", "h", "w"),
    [((2, 3, 4), 0, 0, 0), ((15, 40, 50), 3, 28, 38), ((29, 79, 89), 5, 55, 65)],
)
def test_a_patch_that_would_overhang_is_moved_into_the_scan(voxel, d, h, w):
    sample = draw(_axial_case(voxel), shape=(25, 25, 25), border="inside", jitter_voxels=0)
    values = np.sort(np.rint(sample.patch.numpy()).ravel()).astype(int)
    places = values % 100, values // 100 % 100, values // 10000
    assert [axis.min() for axis in places] == [d, h, w]
    assert [axis.max() for axis in places] == [d + 24, h + 24, w + 24]
    assert sample.label.sum() == 1


def test_a_scan_that_is_shorter_than_the_patch_is_in_its_middle():
    sample = draw(_axial_case(), shape=(40, 24, 24), border="inside", jitter_voxels=0)
    filled = sample.patch[0, 0].flatten(1).abs().amax(dim=1) > 0
    assert filled.tolist() == [False] * 5 + [True] * 30 + [False] * 5


def test_the_jitter_stays_inside_where_there_is_room():
    starts = set()
    for seed in range(60):
        sample = draw(_axial_case(), seed, (10, 10, 10), border="inside", jitter_voxels=5)
        values = np.rint(sample.patch.numpy()).astype(int)
        starts.add((values // 10000).min())
        assert (values // 10000).max() - (values // 10000).min() == 9
    # The larger crop begins at the border, the patch up to ten voxels later.
    assert (min(starts), max(starts)) == (0, 10)


def test_flips_mirror_image_and_label_together(case):
    plain, flipped = draw(case), draw(case, flip_share=1.0)
    # All three axes are mirrored, about the middle of the patch.
    torch.testing.assert_close(flipped.patch, torch.flip(plain.patch, dims=(2, 3, 4)), rtol=0, atol=1e-3)
    assert torch.equal(flipped.label, torch.flip(plain.label, dims=(2, 3, 4)))
    assert not torch.equal(flipped.label, plain.label)


def test_quarter_turns_are_in_the_plane_of_d_and_h(case):
    cube = (28, 28, 28)
    plain = draw(case, shape=cube)
    turns = [torch.rot90(plain.label, n, dims=(2, 3)) for n in (1, 2, 3)]
    seen = set()
    for seed in range(12):
        # The same place and jitter: these are drawn before the turn.
        config = PublishedSampling.model_validate(PLAIN | {"quarter_turn_share": 1.0})
        rng = np.random.default_rng(0)
        label = draw_published_sample(case, cube, config, _Turning(rng, 1 + seed % 3)).label
        (match,) = [n for n, turned in enumerate(turns) if torch.equal(label, turned)]
        seen.add(match)
    assert seen == {0, 1, 2}


class _Turning:
    """A generator whose draw of 1 to 3 is given, everything else as usual."""

    def __init__(self, rng, turns):
        self._rng, self._turns = rng, turns

    def integers(self, low, high=None, size=None, **options):
        if (low, high) == (1, 4):
            return self._turns
        return self._rng.integers(low, high, size, **options)

    def __getattr__(self, name):
        return getattr(self._rng, name)


@pytest.mark.parametrize(("geometry", "factor"), [("zoom", 1.25**3), ("in_plane", 1.25**2)])
def test_one_zoom_changes_all_axes_and_in_plane_zoom_two(case, geometry, factor):
    zoom = {"geometry": geometry, "zoom_share": 1.0, "zoom": (1.25, 1.25), "jitter_voxels": 0}
    before = volume_voxels(draw(case, shape=(49, 49, 49), jitter_voxels=0))
    after = volume_voxels(draw(case, shape=(49, 49, 49), **zoom))
    assert after / before == pytest.approx(factor, rel=0.06)


def test_the_shift_is_after_clipping_and_in_the_scans_unit(case):
    values = set()
    for seed in range(20):
        sample = draw(case, seed, (8, 8, 8), shift_share=1.0, shift=20.0, jitter_voxels=0)
        values.add(round(float(sample.patch.max()), 4))
    # 20 units are 0.2 after normalisation; the highest value of 5 goes to 4.8 .. 5.2.
    assert 4.8 <= min(values) < 4.9
    assert 5.1 < max(values) <= 5.2


def test_a_second_channel_is_the_organ_mask_or_the_scan(case):
    config = PublishedSampling.model_validate(PLAIN)
    rng = np.random.default_rng(0)
    sample = draw_published_sample(case, SHAPE, config, rng, num_channels=2)
    assert sample.patch.shape == (1, 2, *SHAPE)
    assert torch.equal(sample.patch[:, 0], sample.patch[:, 1])

import numpy as np
import pytest
import torch

from clickvol.datasets.sampling import WindowSampling
from clickvol.datasets.window_samples import draw_window_sample
from reference.labelled import block_case

STILL = {
    "kind": "windows",
    "voxel_mm": 2.0,
    "cut_share": 0.0,
    "rotation_degrees": 0.0,
    "stretch": 0.0,
    "elastic_voxels": 0.0,
}


def draw(case, seed, shape=(16, 16, 16), **change):
    config = WindowSampling.model_validate(STILL | change)
    return draw_window_sample(case, shape, config, np.random.default_rng(seed))


def test_windows_have_no_clicks_and_their_own_voxels():
    case = block_case()
    sample = draw(case, 0, (48, 48, 48), max_shift=0.0, foreground_share=1.0)
    assert sample.patch.shape == (1, 48, 48, 48)
    assert (sample.labels == -1).all()
    assert (sample.prior == 0).all()
    assert int(sample.label.sum()) == pytest.approx(24 * 20 * 28 / 8, rel=0.1)


def test_the_share_of_windows_around_the_object_is_as_said():
    case = block_case()
    hit = [bool(draw(case, s, (5, 5, 5), max_shift=0.0).label[0, 2, 2, 2]) for s in range(300)]
    assert np.mean(hit) == pytest.approx(2 / 3, abs=0.08)
    never = [draw(case, s, foreground_share=0.0, max_shift=0.0).label.any() for s in range(60)]
    assert not all(never)


def test_the_shift_takes_the_object_from_the_middle_but_not_out_of_the_window():
    case = block_case()
    for seed in range(30):
        sample = draw(case, seed, (32, 32, 32), foreground_share=1.0, max_shift=0.3)
        assert sample.label.any()
    places = [
        np.argwhere(draw(case, s, (32,) * 3, foreground_share=1.0).label[0].numpy()).mean(axis=0)
        for s in range(30)
    ]
    assert (np.std(places, axis=0) > 2).all()


def test_image_and_label_are_changed_together():
    case = block_case()
    change = {"rotation_degrees": 40.0, "stretch": 0.3, "elastic_voxels": 1.5, "cut_share": 1.0}
    for seed in range(6):
        sample = draw(case, seed, (32, 32, 32), foreground_share=1.0, max_shift=0.1, **change)
        inside = sample.patch[sample.label.bool()].median()
        outside = sample.patch[~sample.label.bool()].median()
        assert inside > outside + 1


def test_the_same_seed_gives_the_same_window():
    case = block_case()
    one, same, other = draw(case, 4), draw(case, 4), draw(case, 5)
    assert torch.equal(one.patch, same.patch)
    assert not torch.equal(one.patch, other.patch)

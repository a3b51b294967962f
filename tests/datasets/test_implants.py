import numpy as np
import pytest
import torch
from scipy import ndimage

from clickvol.datasets.implants import draw_implant_sample
from clickvol.datasets.loader import draw_any_sample
from clickvol.datasets.sampling import SamplingSection
from reference.labelled import block_case

SHAPE = (32, 32, 32)


@pytest.fixture(scope="module")
def case():
    """A body of one value, brighter than air, with a real tumour in it."""
    return block_case(
        image_of_label=lambda label: (
            np.where(label > 0, 900.0, 500.0) + np.random.default_rng(0).normal(0, 60, label.shape)
        )
    )


def draw(case, seed, **change):
    config = SamplingSection(implant_extents_mm=(15.0, 40.0), **change)
    return draw_implant_sample(case, SHAPE, config, np.random.default_rng(seed))


def test_a_lump_is_one_piece_and_clicked_inside(case):
    for seed in range(12):
        sample = draw(case, seed, extra_click_share=0.0)
        mask = sample.label[0].numpy().astype(bool)
        assert ndimage.label(mask)[1] == 1
        d, h, w = np.rint(sample.points_dhw[0].numpy()).astype(int)
        assert mask[d, h, w]
        assert sample.labels.tolist() == [1] + [-1] * (len(sample.labels) - 1)


def test_a_first_look_has_the_click_in_its_middle(case):
    sample = draw(case, 1, first_look_share=1.0, extra_click_share=0.0)
    assert sample.points_dhw[0].tolist() == [15.5, 15.5, 15.5]
    places = [draw(case, s, first_look_share=0.0).points_dhw[0].tolist() for s in range(8)]
    assert np.std(places, axis=0).min() > 1


def test_a_lump_differs_from_what_is_around_it(case):
    contrasts = []
    for seed in range(16):
        sample = draw(case, seed)
        mask = sample.label[0].numpy().astype(bool)
        shell = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_dilation(mask, iterations=2)
        core = ndimage.binary_erosion(mask, iterations=1)
        patch = sample.patch[0].numpy()
        contrasts.append(np.median(patch[core if core.any() else mask]) - np.median(patch[shell]))
    assert np.median(np.abs(contrasts)) > 0.3
    assert min(contrasts) < 0 < max(contrasts)


def test_lumps_are_of_all_sizes_that_were_asked_for(case):
    config = SamplingSection(
        implant_extents_mm=(12.0, 48.0), first_look_share=1.0, first_zoom=(1.0, 1.0), stretch=0.0
    )
    made = [draw_implant_sample(case, SHAPE, config, np.random.default_rng(s)) for s in range(40)]
    volumes_mm3 = np.array([27.0 * int(s.label.sum()) for s in made if s is not None])
    diameters = (6 * volumes_mm3 / np.pi) ** (1 / 3)
    assert diameters.min() < 20
    assert diameters.max() > 35


def test_a_scan_of_air_has_no_room():
    air = block_case(image_of_label=lambda label: np.where(label > 0, 900.0, 0.0))
    assert draw(air, 0) is None
    config = SamplingSection(implant_share=1.0)
    drawn = draw_any_sample(air, SHAPE, config, np.random.default_rng(0))
    assert drawn.label.any()


def test_the_share_of_lumps_is_as_said(case, monkeypatch):
    counted = []
    monkeypatch.setattr("clickvol.datasets.loader.draw_implant_sample", lambda *_, **__: counted.append(1))
    monkeypatch.setattr("clickvol.datasets.loader.draw_sample", lambda *_, **__: None)
    config = SamplingSection(implant_share=0.25)
    for seed in range(400):
        draw_any_sample(case, SHAPE, config, np.random.default_rng(seed))
    assert len(counted) / 400 == pytest.approx(0.25, abs=0.06)


def test_a_second_channel_is_the_scan(case):
    config = SamplingSection()
    sample = draw_implant_sample(case, SHAPE, config, np.random.default_rng(2), num_channels=2)
    assert sample.patch.shape == (2, *SHAPE)
    assert torch.equal(sample.patch[0], sample.patch[1])

from pathlib import Path

import numpy as np
import pytest

from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import (
    CT_WINDOW_HU,
    IntensityScale,
    intensity_scale,
    recognise_modality,
    value_sample,
    wide_intensity_scale,
)

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def _volume(values, modality="unknown"):
    array = np.asarray(values)
    array = array.reshape(array.shape if array.ndim == 3 else (1, 1, -1))
    return Volume(array, VolumeGrid(array.shape, np.eye(4)), modality)


def _recognise(values, modality="unknown"):
    volume = _volume(values, modality)
    return recognise_modality(volume, value_sample(volume))


def _mixture(parts, count=4000):
    """Values of (value, share) parts, each with a little noise."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(v, abs(v) * 0.05, int(share * count)) for v, share in parts])


CT = _mixture([(-1000, 0.4), (-100, 0.2), (50, 0.35), (900, 0.05)])
MR = np.abs(_mixture([(4, 0.4), (300, 0.4), (1000, 0.2)]))
SUV = np.abs(_mixture([(0.01, 0.5), (0.8, 0.45), (7, 0.05)]))


# -- recognising the modality -----------------------------------------------------------------------


def test_ct_is_known_by_its_air_and_fat():
    assert _recognise(CT) == _recognise(CT.astype(np.int16))
    assert (_recognise(CT).modality, _recognise(CT).warning) == ("CT", "")


def test_ct_of_soft_tissue_alone_is_known_by_its_fat():
    soft = _mixture([(-100, 0.3), (50, 0.7)])
    assert (_recognise(soft).modality, _recognise(soft).warning) == ("CT", "")


def test_mr_has_nothing_below_zero():
    assert (_recognise(MR).modality, _recognise(MR).warning) == ("MR", "")


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("values", [CT, MR, SUV])
def test_the_file_s_own_word_is_taken(modality, values):
    result = _recognise(values, modality)
    assert (result.modality, result.warning) == (modality, "")


def test_pet_by_its_file_is_treated_as_mr_with_a_warning():
    result = _recognise(SUV * 1000, "PT")
    assert result.modality == "MR"
    assert "is PET" in result.warning


@pytest.mark.parametrize("values", [SUV, MR / MR.max(), MR / MR.std() - 1.0])
def test_values_unlike_both_are_said(values):
    result = _recognise(values)
    assert result.modality == "MR"
    assert "unlike the CT (HU) and MR" in result.warning
    assert "--modality" in result.warning
    assert "\n" not in result.warning


@pytest.mark.parametrize(
    ("folder", "modality", "warned"),
    [("Sarcoma_CT", "CT", False), ("Sarcoma_MR", "MR", False), ("Sarcoma_PET", "MR", True)],
)
def test_real_scans_are_recognised_by_their_values(folder, modality, warned):
    files = sorted((DATA / folder / "imagesTr").glob("*.nii.gz"))[:4]
    if not files:
        pytest.skip(f"{folder} is not in ../shared/data")
    for file in files:
        volume = read_volume(file)
        assert volume.modality == "unknown"
        result = recognise_modality(volume, value_sample(volume))
        assert (result.modality, bool(result.warning)) == (modality, warned), file.name


# -- the sample of values ---------------------------------------------------------------------------


def test_a_small_scan_is_sampled_whole():
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sample = value_sample(_volume(array))
    assert sample.dtype == np.float32
    assert np.array_equal(sample, np.arange(60))


def test_a_large_scan_is_sampled_all_over():
    array = np.zeros((100, 200, 250), dtype=np.uint8)
    array[50:] = 1
    array[:, 100:] += 2
    array[:, :, 125:] += 4
    sample = value_sample(_volume(array))
    assert 100_000 < sample.size < 1_000_000
    values, counts = np.unique(sample, return_counts=True)
    assert values.tolist() == list(range(8))
    assert counts / sample.size == pytest.approx(np.full(8, 1 / 8), abs=0.02)


def test_a_thin_scan_keeps_its_slices():
    array = np.zeros((3, 2000, 2000), dtype=np.uint8)
    array[:] = np.arange(3)[:, None, None]
    assert set(np.unique(value_sample(_volume(array)))) == {0, 1, 2}


# -- scales -----------------------------------------------------------------------------------------


def test_ct_has_the_fixed_window():
    scale = intensity_scale("CT", np.array([0, 5], dtype=np.float32))
    assert (scale.low, scale.high) == CT_WINDOW_HU == (-160, 240)


def test_the_middle_goes_to_zero_and_the_ends_to_1_6():
    hu = np.array([-3000, -160, -60, 40, 140, 240, 3000], dtype=np.float32)
    normalised = IntensityScale.of_window(-160, 240).normalise(hu)
    assert normalised.dtype == np.float32
    assert normalised == pytest.approx([-1.6, -1.6, -0.8, 0, 0.8, 1.6, 1.6], abs=1e-6)


def test_normalising_keeps_the_shape_and_the_input():
    values = np.full((2, 3, 4), 40, dtype=np.float32)
    assert IntensityScale.of_window(-160, 240).normalise(values).shape == (2, 3, 4)
    assert (values == 40).all()


def test_the_mr_scale_is_made_of_two_percentiles():
    # 0.5th percentile of 0, 1, .. 1000; the values above the mean of 500 are 501, .. 1000.
    scale = intensity_scale("MR", np.arange(1001, dtype=np.float32))
    assert scale.low == pytest.approx(5.0)
    assert scale.high == pytest.approx(501 + 0.995 * 499)


def test_the_mr_scale_does_not_mind_how_much_air_is_in_the_picture():
    tissue = np.linspace(200, 1000, 4000, dtype=np.float32)
    little, much = (
        intensity_scale("MR", np.concatenate([np.zeros(n, np.float32), tissue])) for n in (500, 4000)
    )
    assert little.low == much.low == 0
    assert little.high == pytest.approx(much.high, rel=0.01)


def test_the_mr_scale_follows_the_unit_of_the_scan():
    one, ten = (intensity_scale("MR", MR.astype(np.float32) * factor) for factor in (1, 10))
    assert ten.high == pytest.approx(10 * one.high, rel=1e-4)
    values = MR[:50].astype(np.float32)
    assert one.normalise(values) == pytest.approx(ten.normalise(values * 10), abs=1e-4)


@pytest.mark.parametrize("value", [0.0, -3.0, 700.0])
def test_a_constant_scan_still_has_a_scale(value):
    sample = np.full(100, value, dtype=np.float32)
    normalised = intensity_scale("MR", sample).normalise(sample)
    assert np.isfinite(normalised).all()
    assert (normalised == normalised[0]).all()


def test_the_wide_scale_keeps_the_window_and_tells_lung_from_air():
    scale = wide_intensity_scale("CT", np.zeros(1, np.float32))
    values = np.array([-2000, -1000, -580, -160, 40, 240, 870, 1500, 9000], dtype=np.float32)
    assert scale.normalise(values) == pytest.approx([-2.6, -2.6, -2.1, -1.6, 0, 1.6, 2.1, 2.6, 2.6], abs=1e-6)
    assert scale.outside == -1000


def test_the_wide_scale_of_pet_is_fixed_and_of_mr_goes_on_above_the_window():
    pet = wide_intensity_scale("PT", np.zeros(1, np.float32))
    assert pet.normalise(np.array([0, 2.5, 10, 40], np.float32)) == pytest.approx([-1.6, 0, 1.6, 2.6], abs=1e-6)
    sample = np.linspace(0, 1000, 10_001).astype(np.float32)
    mr, window = wide_intensity_scale("MR", sample), intensity_scale("MR", sample)
    inside = np.linspace(window.low, window.high, 7).astype(np.float32)
    assert mr.normalise(inside) == pytest.approx(window.normalise(inside), abs=1e-5)
    assert mr.normalise(np.array([window.high + 1, 1e9], np.float32))[0] > 1.6


@pytest.mark.parametrize(("top", "modality"), [(1.0, "MR"), (12.0, "PT"), (900.0, "MR")])
def test_uptake_values_are_told_from_scaled_mr_by_a_model_that_knows_pet(top, modality):
    sample = np.linspace(0, top, 1000).astype(np.float32)
    volume = Volume(sample.reshape(10, 10, 10), VolumeGrid((10, 10, 10), np.eye(4)))
    assert recognise_modality(volume, sample, knows_pet=True).modality == modality
    assert recognise_modality(volume, sample).modality == "MR"

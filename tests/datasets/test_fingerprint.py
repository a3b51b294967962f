import numpy as np
import pytest

from clickvol.datasets.fingerprint import (
    SAMPLE_VOXELS,
    IntensityConstants,
    fingerprint,
    foreground_sample,
)
from clickvol.datasets.published import read_published


def test_two_scans_of_one_value_each_weigh_alike_whatever_their_size():
    array = np.zeros((4, 5, 6), np.int16)
    small, large = np.zeros(array.shape, np.uint8), np.ones(array.shape, np.uint8)
    small[1, 2, 3] = 1
    samples = [foreground_sample(array + 10, small, "a"), foreground_sample(array + 20, large, "b")]
    result = fingerprint(samples, 2)
    assert (result.low, result.high) == (10, 20)
    assert result.mean == 15
    assert result.deviation == 5
    assert result.source == "fingerprint"


def test_percentiles_mean_and_deviation_are_exact():
    values = np.arange(1001, dtype=np.float32)
    result = fingerprint([values[:400], values[400:]], 2)
    assert result.low == pytest.approx(5)
    assert result.high == pytest.approx(995)
    assert result.mean == pytest.approx(500)
    assert result.deviation == pytest.approx(np.sqrt((1001**2 - 1) / 12))


def test_only_the_inside_counts_and_the_draw_is_seeded_by_the_case():
    array = np.arange(2000, dtype=np.int16).reshape(10, 10, 20)
    mask = (array >= 1500).astype(np.uint8)
    sample = foreground_sample(array, mask, "a")
    assert sample.shape == (SAMPLE_VOXELS,)
    assert sample.dtype == np.float32
    assert sample.min() == 1500
    assert sample.max() == 1999
    assert sample.mean() == pytest.approx(1749.5, abs=10)
    assert np.array_equal(sample, foreground_sample(array, mask, "a"))
    assert not np.array_equal(sample, foreground_sample(array, mask, "b"))


def test_objects_of_a_single_value_can_still_be_normalised():
    result = fingerprint([np.full(5, 7, np.float32)], 1)
    assert (result.low, result.high, result.mean, result.deviation) == (7, 7, 7, 1)


def test_published_constants_become_a_scale():
    known = IntensityConstants.of_published("colon", read_published("colon"))
    assert known.source == "colon"
    scale = known.scale()
    assert scale.outside == pytest.approx(65.175035)
    values = scale.normalise(np.array([-1000, 65.175035, 175, 3000], np.float32))
    expected = (np.array([-57, 65.175035, 175, 175]) - 65.175035) / 32.651197
    assert values == pytest.approx(expected, abs=1e-5)


def test_of_very_many_scans_each_gives_a_part():
    """More than ten million values are not needed: of 5,000 scans 2,000 each."""
    samples = (np.repeat(np.float32([3, 99]), [2000, 8000]) for _ in range(5000))
    constants = fingerprint(samples, 5000)
    assert (constants.low, constants.high, constants.mean) == (3, 3, 3)

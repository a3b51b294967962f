import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.io.voxel_values import RepairNote, clean_values, scale_values


def test_no_scaling_returns_the_very_array():
    array = np.array([1, 2], dtype=np.int16)
    assert scale_values(array, 1.0, 0.0) is array


@pytest.mark.parametrize(("slope", "intercept"), [(1e300, 0.0), (1.0, -2e12), (float("nan"), 0.0)])
def test_a_scale_that_no_scanner_writes_is_refused(slope, intercept):
    with pytest.raises(UnreadableVolumeError, match="at most 1e\\+12 is expected"):
        scale_values(np.array([1, 2], dtype=np.int16), slope, intercept)


@pytest.mark.parametrize(
    ("values", "stored", "intercept", "expected"),
    [
        ([0, 4095], np.int16, -1024, np.int16),
        ([0, 4095], np.uint16, -1024, np.int16),
        ([2000, 40000], np.uint16, -1024, np.uint16),
        ([0, 40000], np.uint16, -1024, np.int32),
        ([0, 200], np.uint8, -1024, np.int32),
        ([-32768, 5], np.int16, -1, np.int32),
        ([0, 2**31 - 1], np.int32, 1, np.float64),
    ],
)
def test_whole_shift_keeps_integers_and_is_exact(values, stored, intercept, expected):
    shifted = scale_values(np.array(values, dtype=stored), 1.0, float(intercept))
    assert shifted.dtype == expected
    assert shifted.tolist() == [v + intercept for v in values]


def test_fractions_go_to_float32_and_float64_stays():
    scaled = scale_values(np.array([0, 10, -4], dtype=np.int16), 0.5, 0.25)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [0.25, 5.25, -1.75]
    assert scale_values(np.array([1.0]), 2.0, 0.0).dtype == np.float64


def test_bad_voxels_become_the_smallest_finite_value_and_are_counted():
    array = np.array([[[np.nan, np.inf, -np.inf, -7.5, 3.0]]], dtype=np.float32)
    cleaned, notes = clean_values(array, "scan.nii")
    assert cleaned.tolist() == [[[-7.5, -7.5, -7.5, -7.5, 3.0]]]
    assert notes == ("3 voxels of 5 were NaN or infinite and were set to the smallest finite value, -7.5.",)
    assert clean_values(cleaned, "scan.nii")[1] == ()


def test_one_bad_voxel_is_said_in_the_singular():
    assert clean_values(np.array([np.nan, 1, 2]), "s")[1][0].startswith("1 voxel of 3 was NaN")


def test_all_bad_is_refused():
    with pytest.raises(UnreadableVolumeError, match="no voxel is a finite number, all 8"):
        clean_values(np.full((2, 2, 2), np.nan), "scan.nii")


@pytest.mark.parametrize("value", [0, -1024])
def test_constant_scan_is_refused(value):
    with pytest.raises(UnreadableVolumeError, match=f"empty scan: every voxel is {value}"):
        clean_values(np.full((2, 2, 2), value, dtype=np.int16), "scan.nii")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mark", ["min", "max", "single"])
def test_the_ends_of_a_float_mark_no_value(dtype, mark):
    array = np.array([[[5, 7, 9, 11.5]]], dtype)
    value = np.finfo(np.float32).min if mark == "single" else getattr(np.finfo(dtype), mark)
    array[0, 0, 2] = value
    cleaned, (note,) = clean_values(array, "a")
    assert cleaned.tolist() == [[[5, 7, 5, 11.5]]]
    assert isinstance(note, RepairNote)
    assert "a mark for no value" in note


def test_the_lowest_integer_marks_no_value_where_it_stands_apart():
    apart = np.array([[[-32768, 0, 900]]], np.int16)
    cleaned, (note,) = clean_values(apart, "a")
    assert cleaned.tolist() == [[[0, 0, 900]]]
    assert "1 voxel of 3 was -32768, a mark" in note
    used = np.array([[[-32768, -32000, 900]]], np.int16)
    assert clean_values(used.copy(), "a")[0].tolist() == used.tolist()


def test_scaling_beyond_the_dtype_warns_nobody(recwarn):
    array = np.array([np.finfo(np.float32).min, 1, 2], np.float32)
    assert not np.isfinite(scale_values(array, 10.0, 1.0)[0])
    assert not recwarn.list

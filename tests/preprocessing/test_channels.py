import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.preprocessing.channels import (
    organ_of_label,
    organ_of_values,
    stand_in_organ,
    with_organ_channel,
)


def test_everything_above_zero_is_organ():
    values = np.array([[[-1.0, 0.0, 0.5, 2.0]]])
    organ = organ_of_values(values)
    assert organ.tolist() == [[[0, 0, 1, 1]]]
    assert organ.dtype == np.uint8
    assert organ_of_values(np.array([[[0, 255]]], dtype=np.uint8)).tolist() == [[[0, 1]]]


def test_the_organ_of_a_label_is_organ_and_tumour():
    label = np.array([[[0, 1, 2, 2, 1]]], dtype=np.int16)
    tumour = (label == 2).astype(np.uint8)
    assert organ_of_label(label, tumour).tolist() == [[[0, 1, 1, 1, 1]]]


def test_a_label_of_the_tumour_alone_makes_no_organ_mask():
    tumour = np.array([[[0, 1, 0]]], dtype=np.uint8)
    with pytest.raises(ConfigError, match=r"would be the answer; give tumour_label"):
        organ_of_label(tumour, tumour)


def test_the_stand_in_reaches_20_mm_whatever_the_spacing():
    tumour = np.zeros((9, 50, 50), dtype=np.uint8)
    tumour[4, 25, 25] = 1
    organ = stand_in_organ(tumour, np.array([10.0, 2.0, 1.0]))
    assert np.flatnonzero(organ[:, 25, 25]).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(organ[4, :, 25]).tolist() == list(range(15, 36))
    assert np.flatnonzero(organ[4, 25]).tolist() == list(range(5, 46))
    # A ball, not a box.
    assert organ[6, 26, 25] == 0


def test_the_mask_is_the_second_channel_and_not_normalised():
    scan = np.array([[[-1.6, 0.3, 1.2]]], dtype=np.float32)
    organ = np.array([[[0.5, 0.51, 1.0]]], dtype=np.float32)
    channels = with_organ_channel(scan, organ)
    assert channels.shape == (2, 1, 1, 3)
    assert channels.dtype == np.float32
    np.testing.assert_array_equal(channels[0], scan)
    assert channels[1].tolist() == [[[0.0, 1.0, 1.0]]]


def test_without_a_mask_the_scan_stands_there():
    scan = np.array([[[-1.6, 0.3, 1.2]]], dtype=np.float32)
    channels = with_organ_channel(scan, None)
    np.testing.assert_array_equal(channels[0], scan)
    np.testing.assert_array_equal(channels[1], scan)

import resource

import blosc2
import numpy as np
import pytest

from clickvol.datasets.stored_array import StoredArray, write_stored
from clickvol.errors import ConfigError, OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import extract

SHAPE = (37, 70, 65)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def stored(array, tmp_path):
    write_stored(array, tmp_path / "a.b2nd")
    return StoredArray.whole(tmp_path / "a.b2nd", "case 7", SHAPE, np.int16)


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:],
        np.s_[3:20, 10:64, 33:34],
        np.s_[::-1, :, ::-1],
        np.s_[30:2:-1, 5:, :-3],
        np.s_[5:5, :, :],
        np.s_[-4:],
        np.s_[:, 3:500],
        np.s_[::3, ::7, ::-2],
        np.s_[4, 5, 6],
        np.s_[:, -1, ::-1],
        np.s_[7],
        np.s_[:, np.array([1, 5]), :],
    ],
)
def test_an_index_gives_what_numpy_gives(array, stored, index):
    assert np.array_equal(np.asarray(stored[index]), array[index])


def test_parts_of_parts(array, stored):
    ours, plain = stored, array
    for index in (np.s_[::-1, 4:60, :], np.s_[2:30, ::-1, 5:40], np.s_[::-1, 3:20, ::-1], np.s_[1:9]):
        ours, plain = ours[index], plain[index]
        assert ours.shape == plain.shape
        assert np.array_equal(ours, plain)
    assert ours.size == plain.size
    assert np.array_equal(ours.transpose(2, 0, 1), plain.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_values_come_back_as_they_were_and_equal_arrays_give_equal_bytes(tmp_path, dtype):
    array = (np.random.default_rng(1).normal(0, 60, (5, 33, 40))).astype(dtype)
    for name in ("a.b2nd", "b.b2nd"):
        write_stored(np.asfortranarray(array), tmp_path / name)
    assert (tmp_path / "a.b2nd").read_bytes() == (tmp_path / "b.b2nd").read_bytes()
    back = np.asarray(StoredArray.whole(tmp_path / "a.b2nd", "a", array.shape, dtype))
    assert back.dtype == dtype
    assert np.array_equal(back, array)


def test_bits_are_masks(tmp_path):
    values = np.array([[[0, 1, 2, 3, 4, 6]]], dtype=np.uint8)
    write_stored(values, tmp_path / "a.b2nd")
    mask = StoredArray.whole(tmp_path / "a.b2nd", "a", values.shape, np.uint8, bits=2)
    assert mask.dtype == np.uint8
    assert np.asarray(mask).tolist() == [[[0, 0, 1, 1, 0, 1]]]


def test_numbers_are_read_as_what_they_mean_and_a_changed_meaning_is_noticed(tmp_path):
    numbers, meanings = (
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 5,
        np.array([-9, 0, 4, 7, 300], np.int16),
    )
    write_stored(numbers, tmp_path / "a.b2nd", meanings)
    stored = StoredArray.whole(tmp_path / "a.b2nd", "a", (2, 3, 4), np.int16)
    assert stored.dtype == np.int16
    assert np.array_equal(stored[1:, ::-1], meanings[numbers[1:, ::-1]])
    with pytest.raises(ConfigError, match="is damaged"):
        np.asarray(StoredArray.whole(tmp_path / "a.b2nd", "a", (2, 3, 4), np.float64)[...])
    file = blosc2.open(str(tmp_path / "a.b2nd"), mode="a")
    file.schunk.vlmeta["meanings"] = np.array([-9, 0, 4, 7, 301], "<i2").tobytes()
    del file
    with pytest.raises(ConfigError, match="is damaged"):
        np.asarray(stored)


def test_a_patch_is_cut_from_the_file_as_from_memory(array, stored):
    grid = VolumeGrid(SHAPE, np.array([[0, 0, -2.0, 0], [0, 2.0, 0, 5], [-3.0, 0, 0, 9], [0, 0, 0, 1]]))
    patch = VolumeGrid.along_patient((20, 20, 20), 4.5, grid.to_world(grid.box.middle))
    expected = extract(array, grid, patch, outside_value=-1000)
    assert np.array_equal(extract(stored, grid, patch, outside_value=-1000), expected)


def test_files_are_not_kept_open(tmp_path):
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    write_stored(values, tmp_path / "a.b2nd")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        many = [StoredArray.whole(tmp_path / "a.b2nd", str(n), (4, 5, 6), np.int16) for n in range(300)]
        assert all(one[1, 2, 3] == values[1, 2, 3] for one in many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_every_flipped_bit_under_a_box_is_noticed_and_the_case_named(array, stored):
    whole = stored.path.read_bytes()
    places = np.random.default_rng(2).integers(len(whole), size=60)
    for place in [*places.tolist(), 0, 40, len(whole) - 5]:
        spoiled = bytearray(whole)
        spoiled[place] ^= 4
        stored.path.write_bytes(spoiled)
        try:
            same = np.array_equal(np.asarray(stored), array)
        except ConfigError as error:
            assert "a.b2nd of the case case 7 is damaged; copy it" in str(error)  # noqa: PT017
            assert "delete it and run clickvol data prepare again" in str(error)  # noqa: PT017
        else:
            assert same, place


def test_another_piece_may_be_damaged(array, stored):
    whole = bytearray(stored.path.read_bytes())
    whole[400:2000] = bytes(1600)  # the first pieces
    stored.path.write_bytes(whole)
    with pytest.raises(ConfigError, match="is damaged"):
        np.asarray(stored[:32, :32, :32])
    assert np.array_equal(stored[32:, 64:, 64:], array[32:, 64:, 64:])


def test_what_is_not_there_or_another_array_is_named(stored, tmp_path):
    write_stored(np.zeros((3, 4, 5), np.float32), stored.path)
    with pytest.raises(ConfigError, match=r"holds float32 of shape \(3, 4, 5\), not int16 of \(37, 70, 65\)"):
        np.asarray(stored)
    stored.path.write_bytes(stored.path.read_bytes()[:50])
    with pytest.raises(ConfigError, match="case 7 is damaged"):
        np.asarray(stored)
    stored.path.unlink()
    with pytest.raises(ConfigError, match="case 7 is missing"):
        np.asarray(stored)


def test_a_full_disk_is_said_and_leaves_nothing(array, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a\.b2nd"):
            write_stored(array, tmp_path / "a.b2nd")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []

import numpy as np
import pytest

from clickvol.datasets.case_index import (
    MAX_OBJECT_VOXELS,
    NUM_PLACES,
    index_row,
    measure,
    open_index,
    slice_numbers,
    write_index,
    write_row,
)
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume

AFFINE = np.array([[0, 0, 2.0, 0], [0, 3.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])
HASHES = ["00" * 31 + "01", "ff" * 32, "00" * 32]


def _case(shape=(9, 20, 30)):
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 100
    return Volume(image, VolumeGrid(shape, AFFINE), "MR"), np.zeros(shape, np.uint8)


def test_two_parts_of_an_object_are_runs_of_slices():
    volume, mask = _case()
    mask[1:3, 4, 7] = 1
    mask[5, 19, 7:10] = 1
    facts, row = measure(volume, mask, "a")
    assert facts.runs_dhw == (((1, 3), (5, 6)), ((4, 5), (19, 20)), ((7, 10),))
    assert slice_numbers(facts.runs_dhw[0]).tolist() == [1, 2, 5]
    assert facts.num_voxels == 5
    assert facts.longest_side_mm == 45  # 15 steps of 3 mm
    assert facts.value_range == (-100, 9 * 20 * 30 - 101)
    assert row.object_voxels_dhw.tolist() == np.argwhere(mask).tolist()
    scale = LabelledVolume.of(volume, mask).scale
    assert facts.window == (scale.low, scale.high)


def test_of_a_large_object_a_part_is_kept_that_the_name_seeds():
    volume, mask = _case((30, 30, 30))
    mask[3:27, 3:27, 3:27] = 1
    facts, row = measure(volume, mask, "a")
    assert facts.num_voxels == 24**3
    assert row.object_voxels_dhw.shape == (MAX_OBJECT_VOXELS, 3)
    assert len(np.unique(row.object_voxels_dhw, axis=0)) == MAX_OBJECT_VOXELS
    assert mask[tuple(row.object_voxels_dhw.T)].all()
    assert np.abs(row.object_voxels_dhw.mean(axis=0) - 14.5).max() < 0.5
    assert np.array_equal(row.object_voxels_dhw, measure(volume, mask, "a")[1].object_voxels_dhw)
    assert not np.array_equal(row.object_voxels_dhw, measure(volume, mask, "b")[1].object_voxels_dhw)


def test_rows_come_back_from_the_file(tmp_path):
    volume, mask = _case()
    rows, paths = [], []
    for number, name in enumerate(HASHES):
        mask[number, 3:5, 6] = 1
        facts, row = measure(volume, mask, name)
        rows.append((facts, row))
        paths.append(tmp_path / f"{number}.npy")
        write_row(row, paths[-1])
    write_index(paths, HASHES, tmp_path)
    table = open_index(tmp_path, HASHES)
    assert not table.flags.writeable
    for number, (facts, row) in enumerate(rows):
        back = index_row(table, number, facts.num_voxels)
        assert np.array_equal(back.object_voxels_dhw, row.object_voxels_dhw)
        assert len(back.object_voxels_dhw) == 2 * (number + 1)
        assert np.array_equal(back.places_dhw, row.places_dhw)
        assert np.array_equal(back.values, volume.array[tuple(row.places_dhw.T)])
        assert back.values.shape == (NUM_PLACES,)
    for others in (HASHES[:2], HASHES[::-1]):
        with pytest.raises(ConfigError, match="is not of the cases in the manifest"):
            open_index(tmp_path, others)

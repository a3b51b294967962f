import shutil

import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.cases import open_data
from reference.evaluation_sets import SHAPE, block_arrays, write_raw, write_set


def arrays(first_seed=0):
    return {f"a_{n}": block_arrays(seed=first_seed + n) for n in (1, 2, 3)}


@pytest.fixture
def folder(tmp_path):
    return write_set(tmp_path / "blocks", arrays(), modality="MRI", spacing_dhw_mm=(3.0, 3.0, 3.0))


def test_a_prepared_set_gives_its_cases_on_their_own_grids(folder):
    (data,) = open_data([str(folder)], split="all")
    assert data.name == "blocks"
    assert [case.case_id for case in data.cases] == ["a_1", "a_2", "a_3"]
    assert {case.modality for case in data.cases} == {"MR"}
    volume, label = data.cases[1].read_native()
    image, expected = block_arrays(seed=2)
    assert np.array_equal(volume.array, image.astype(np.int16))
    assert np.array_equal(label, expected)
    assert volume.modality == "MR"
    assert volume.grid.shape_dhw == SHAPE


def test_a_part_of_the_set(folder):
    ids = [open_data([str(folder)], split=part)[0].cases[0].case_id for part in ("train", "val", "test")]
    assert sorted(ids) == ["a_1", "a_2", "a_3"]


def test_a_name_can_be_given_and_cases_limited(folder):
    (data,) = open_data([f"mine={folder}"], split="all", limit=2)
    assert data.name == "mine"
    assert len(data.cases) == 2


def test_other_voxels_are_other_data_and_another_place_is_not(folder, tmp_path):
    (before,) = open_data([str(folder)], split="all")
    moved = folder.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "raw")
    (after,) = open_data([str(moved)], split="all", limit=1)
    assert after.content_hash == before.content_hash
    assert after.cases[0].read_native()[1].any()
    (other,) = open_data([str(write_set(tmp_path / "other", arrays(1), modality="MRI"))], split="all")
    assert other.content_hash != before.content_hash


@pytest.mark.parametrize(
    ("words", "split", "message"),
    [
        ([], "all", "give --data"),
        (["{}"], "some", "there is no part 'some'"),
        (["{}", "{}"], "all", "two data sets are called 'blocks'"),
        (["{}/cases"], "all", "is not a prepared data set"),
        (["{}/nowhere"], "all", "is not a prepared data set"),
    ],
)
def test_what_is_no_data_is_refused(folder, words, split, message):
    with pytest.raises(ConfigError, match=message):
        open_data([word.format(folder) for word in words], split=split)


def test_a_part_without_cases_is_refused(tmp_path):
    folder = write_set(tmp_path / "one", {"a": block_arrays()})
    with pytest.raises(ConfigError, match="has no cases in the part 'test' of fold 0"):
        open_data([str(folder)], split="test")


def test_a_folder_that_is_not_prepared_is_answered_with_the_command(tmp_path):
    raw = write_raw(tmp_path / "raw", {"a": block_arrays()})
    with pytest.raises(ConfigError, match=f"run: clickvol data prepare msd {raw} -o NEW_FOLDER"):
        open_data([str(raw)], split="all")
    np.savez(tmp_path / "scan.npz", imgs=np.zeros(1))
    with pytest.raises(ConfigError, match=f"run: clickvol data prepare npz {tmp_path} -o NEW_FOLDER"):
        open_data([str(tmp_path)], split="all")

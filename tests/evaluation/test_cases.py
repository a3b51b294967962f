import numpy as np
import pytest

from clickvol.datasets.splits import Split
from clickvol.errors import ConfigError
from clickvol.evaluation.cases import open_data
from reference.dicom_data_set import truth_dhw, write_dicom_data_set
from reference.evaluation_sets import SHAPE, block_arrays, write_set
from reference.prepared_sets import prepared_of, write_case


@pytest.fixture
def folder(tmp_path):
    cases = {name: block_arrays(seed=seed) for seed, name in enumerate(("a_1", "a_2", "a_3"))}
    return write_set(tmp_path / "blocks", cases, modality="MRI")


def test_an_msd_folder_gives_its_cases(folder):
    (data,) = open_data([str(folder)], split="all")
    assert data.name == "blocks"
    assert [case.case_id for case in data.cases] == ["a_1", "a_2", "a_3"]
    assert {case.modality for case in data.cases} == {"MR"}
    volume, label = data.cases[1].read()
    image, expected = block_arrays(seed=1)
    assert np.array_equal(volume.array, image.astype(np.int16))
    assert np.array_equal(label, expected)
    assert volume.modality == "MR"
    assert volume.grid.shape_dhw == SHAPE


def test_the_organ_is_every_labelled_voxel_of_a_set_with_a_tumour_label(tmp_path):
    cases = [write_case(tmp_path, number) for number in range(2)]
    cases[1] = cases[1].model_copy(update={"tumour_label": None})
    split = Split(train=(), val=(), test=("case_0", "case_1"))
    manifest = prepared_of(cases, [split]).model_dump_json()
    (tmp_path / "prepared.json").write_text(manifest)
    (data,) = open_data([str(tmp_path)], split="test")
    one, other = data.cases
    _, tumour = one.read()
    assert tumour.sum() == 3 * 2 * 2
    organ = one.read_organ()
    assert organ.dtype == np.uint8
    assert organ.sum() == tumour.sum() + 1
    assert organ[tumour > 0].all()
    assert organ[0, 0, 0] == 1
    assert other.read_organ is None


def test_a_set_that_was_not_prepared_tells_no_organ(folder):
    (data,) = open_data([str(folder)], split="all")
    assert [case.read_organ for case in data.cases] == [None] * 3


def test_a_name_can_be_given_and_cases_limited(folder):
    (data,) = open_data([f"mine={folder}"], split="all", limit=2)
    assert data.name == "mine"
    assert len(data.cases) == 2


def test_other_files_are_other_data(folder):
    (before,) = open_data([str(folder)], split="all")
    (again,) = open_data([str(folder)], split="all", limit=1)
    assert before.content_hash == again.content_hash
    file = next((folder / "imagesTr").iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    (after,) = open_data([str(folder)], split="all")
    assert before.content_hash != after.content_hash


@pytest.mark.parametrize(
    ("words", "split", "message"),
    [
        ([], "all", "give --data"),
        (["{}"], "test", "has no splits, so there is no 'test'"),
        (["{}", "{}"], "all", "two data sets are called 'blocks'"),
        (["{}/imagesTr"], "all", "is no data set"),
        (["{}/nowhere"], "all", "is no data set"),
    ],
)
def test_what_is_no_data_is_refused(folder, words, split, message):
    with pytest.raises(ConfigError, match=message):
        open_data([word.format(folder) for word in words], split=split)


def test_scans_and_labels_as_dicom(tmp_path):
    folder = write_dicom_data_set(tmp_path / "set", ["a_1", "a_2"])
    (data,) = open_data([str(folder)], split="all")
    assert [case.case_id for case in data.cases] == ["a_1", "a_2"]
    for case in data.cases:
        volume, label = case.read()
        assert volume.array.dtype == np.int16
        np.testing.assert_array_equal(label, truth_dhw()[0])
    next((folder / "images" / "a_1").iterdir()).write_bytes(b"another")
    (changed,) = open_data([str(folder)], split="all")
    assert changed.content_hash != data.content_hash

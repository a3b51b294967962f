import json

import numpy as np
import pytest

from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import (
    read_native_case,
    read_prepared_case,
    read_prepared_set,
)
from clickvol.datasets.samples import LabelledVolume, draw_sample
from clickvol.datasets.sampling import SamplingSection
from clickvol.errors import ConfigError
from reference.data_sets import image_ijk, label_ijk, write_msd, write_nifti

IDS = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path):
    source = write_msd(tmp_path / "src", IDS)
    label = label_ijk(1)
    label[5, 4, 3] = 2
    write_nifti(label, source / "labelsTr" / "b.nii.gz")
    prepare_data_set(
        PreparationPlan(kind="msd", source=source, destination=tmp_path / "dst", spacing_dhw_mm=(1, 1, 1))
    )
    return tmp_path / "dst"


def _change(folder, **fields):
    content = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps(content | fields))


def test_parts_are_lists_of_cases(folder):
    made = read_prepared_set(folder)
    parts = [made.part(name) for name in ("train", "val", "test")]
    assert sorted(case.id for part in parts for case in part) == IDS
    assert made.part("all") == list(made.cases)
    with pytest.raises(ConfigError, match="no part 'tain' of a data set; choose train, val, test or all"):
        made.part("tain")
    for fold in (-1, 1):
        with pytest.raises(ConfigError, match=f"has no fold {fold}; its 1 folds"):
            made.part("train", fold)


def test_arrays_are_mapped_read_only_and_serve_as_a_scan(folder):
    case = read_prepared_set(folder).cases[0]
    volume, mask = read_prepared_case(folder, case)
    assert volume.array.dtype == np.int16
    assert mask.dtype == np.uint8
    assert volume.array.shape == mask.shape == volume.grid.shape_dhw == (16, 10, 12)
    assert not volume.array.flags.writeable
    assert isinstance(volume.array.base, np.memmap)
    assert (volume.array[mask > 0] > 50).all()
    labelled = LabelledVolume.of(volume, mask)
    rng = np.random.default_rng(0)
    sample = draw_sample(labelled, (8, 8, 8), SamplingSection(), rng)
    assert sample.label.any()


def test_native_cases_come_from_the_files_with_the_label_applied(tmp_path, folder):
    case = read_prepared_set(folder).cases[1]
    volume, mask = read_native_case(case)
    assert np.array_equal(volume.array, image_ijk().T)
    assert np.array_equal(mask, (label_ijk() > 0).T)
    assert volume.modality == "CT"
    assert volume.grid.file_facts is not None
    _, one_voxel = read_native_case(case.model_copy(update={"tumour_label": 2}))
    assert np.argwhere(one_voxel).tolist() == [[3, 4, 5]]


def test_native_files_that_changed_are_refused(folder):
    case = read_prepared_set(folder).cases[0]
    case.image.path.write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"a\.nii\.gz has 5 bytes, not \d+"):
        read_native_case(case)
    case.image.path.unlink()
    with pytest.raises(ConfigError, match=r"a\.nii\.gz is gone"):
        read_native_case(case)


def test_arrays_that_are_not_there_or_not_these_are_refused(folder):
    case = read_prepared_set(folder).cases[0]
    path = folder / "cases" / case.image_file
    np.save(path, np.zeros((2, 3, 4), np.int16))
    with pytest.raises(ConfigError, match=r"holds int16 of shape \(2, 3, 4\)"):
        read_prepared_case(folder, case)
    np.save(path, np.zeros(case.shape_dhw, np.float64))
    with pytest.raises(ConfigError, match="holds float64"):
        read_prepared_case(folder, case)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(ConfigError, match="missing or damaged"):
        read_prepared_case(folder, case)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match="missing or damaged"):
        read_prepared_case(folder, case)
    path.unlink()
    with pytest.raises(ConfigError, match="missing or damaged"):
        read_prepared_case(folder, case)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "version: "),
        ({"cases": []}, "cases: "),
        ({"colour": 1}, "colour: "),
        ({"splits": [{"train": ["zz"], "val": []}]}, "names? 'zz', which is no case"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why_in_one_line(folder, fields, message):
    _change(folder, **fields)
    with pytest.raises(ConfigError, match=message) as caught:
        read_prepared_set(folder)
    assert "\n" not in str(caught.value)
    assert "prepare again" in str(caught.value)


def test_a_manifest_with_a_case_twice_is_refused(folder):
    content = json.loads((folder / "prepared.json").read_text())
    _change(folder, cases=[*content["cases"], content["cases"][0]])
    with pytest.raises(ConfigError, match="two cases have one id"):
        read_prepared_set(folder)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a prepared data set: prepared\.json is missing"):
        read_prepared_set(tmp_path)

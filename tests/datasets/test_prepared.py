import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import CaseIndex, read_prepared_set
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import PatchSampling
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
    assert sorted(case.case_id for part in parts for case in part) == IDS
    assert made.part("all") == list(made.cases)
    with pytest.raises(ConfigError, match="no part 'tain' of a data set; choose train, val, test or all"):
        made.part("tain")
    for fold in (-1, 1):
        with pytest.raises(ConfigError, match=f"has no fold {fold}; its 1 folds"):
            made.part("train", fold)


def test_arrays_are_read_in_parts_and_serve_as_a_scan(folder):
    case = read_prepared_set(folder).cases[0]
    volume, mask = case.open_arrays()
    assert volume.array.dtype == np.int16
    assert mask.dtype == np.uint8
    assert volume.array.shape == mask.shape == volume.grid.shape_dhw == (16, 10, 12)
    image, inside = np.asarray(volume.array), np.asarray(mask)
    assert (image[inside > 0] > 50).all()
    labelled = LabelledVolume.of(replace(volume, array=image), inside)
    store = ScanStore.of([StoredScan.of(labelled, "a", "CT")], torch.device("cpu"))
    assert PatchSampler(store, PatchSampling(), 8, seed=0).batch([0]).label.any()


def test_native_cases_have_the_label_applied_and_the_header_of_the_file(folder):
    case = read_prepared_set(folder).cases[1]
    volume, mask = case.read_native()
    assert np.array_equal(volume.array, image_ijk(corner=-980).T)
    assert np.array_equal(mask, (label_ijk() > 0).T)
    assert volume.modality == "CT"
    assert volume.grid.file_facts is not None
    _, one_voxel = case.model_copy(update={"tumour_label": 2}).read_native()
    assert np.argwhere(one_voxel).tolist() == [[3, 4, 5]]


def test_native_files_that_changed_are_refused(folder):
    case = read_prepared_set(folder).cases[0]
    path = folder / "cases" / case.native_label.name
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"a\.native_label\.nii\.gz is not the file that was prepared"):
        case.read_native()
    path.unlink()
    with pytest.raises(ConfigError, match=r"a\.native_label\.nii\.gz is missing"):
        case.read_native()


def test_a_set_can_be_moved_and_its_source_deleted(folder, tmp_path):
    before = read_prepared_set(folder)
    shutil.rmtree(tmp_path / "src")
    moved = folder.rename(tmp_path / "elsewhere")
    after = read_prepared_set(moved)
    assert after.model_dump() == before.model_dump()
    for number, case in enumerate(after.cases):
        assert case.folder == moved
        volume, mask = case.read_native()
        assert np.array_equal(volume.array, image_ijk(corner=-1000 + 20 * number).T)
        assert mask.any()
        _, mapped = case.open_arrays()
        assert mapped.shape == (16, 10, 12)


def test_a_case_belongs_to_the_patient_at_the_end_of_its_id(folder):
    case = read_prepared_set(folder).cases[0].model_copy(update={"case_id": "sts_ct_008"})
    assert case.belongs_to(("019", "008"))
    assert not case.belongs_to(("08", "ct", "sts"))
    assert not case.belongs_to(())


def test_the_index_has_what_is_in_the_arrays(folder):
    made = read_prepared_set(folder)
    index = CaseIndex(made)
    for case in made.cases:
        volume, mask = case.open_arrays()
        image, inside = np.asarray(volume.array), np.asarray(mask)
        row = index.row(case)
        assert np.array_equal(row.object_voxels_dhw, np.argwhere(inside))
        assert np.array_equal(image[tuple(row.places_dhw.T)], row.values)
        assert case.facts.num_voxels == inside.sum()
        assert case.facts.value_range == (image.min(), image.max())


def test_an_index_that_is_missing_torn_or_of_other_cases_is_refused(folder):
    path = folder / "index.npy"
    whole = path.read_bytes()
    made = read_prepared_set(folder)
    with pytest.raises(ConfigError, match="is not of the cases in the manifest; run clickvol data prepare"):
        CaseIndex(made.model_copy(update={"cases": made.cases[::-1]}))
    path.write_bytes(whole[:-9])
    with pytest.raises(ConfigError, match=r"index\.npy is missing or damaged; run clickvol data prepare again"):
        CaseIndex(made)
    np.save(path, np.zeros(4))
    with pytest.raises(ConfigError, match="is not of the cases"):
        CaseIndex(made)
    path.unlink()
    with pytest.raises(ConfigError, match="is missing or damaged"):
        CaseIndex(made)


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


def test_a_manifest_cannot_name_files_outside_its_folder(folder):
    content = json.loads((folder / "prepared.json").read_text())
    content["cases"][0]["image"]["name"] = "../../secret.npy"
    _change(folder, cases=content["cases"])
    with pytest.raises(ConfigError, match=r"cases\.0\.image\.name: "):
        read_prepared_set(folder)


def test_a_manifest_with_a_case_twice_is_refused(folder):
    content = json.loads((folder / "prepared.json").read_text())
    _change(folder, cases=[*content["cases"], content["cases"][0]])
    with pytest.raises(ConfigError, match="two cases have one id"):
        read_prepared_set(folder)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a prepared data set: prepared\.json is missing"):
        read_prepared_set(tmp_path)

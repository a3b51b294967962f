import json
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from clickvol.datasets.case_index import write_index
from clickvol.datasets.labelled_volumes import read_labelled_volumes
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import read_prepared_set
from clickvol.errors import ConfigError
from clickvol.preprocessing.intensity import IntensityScale
from reference.data_sets import AFFINE_IJK, SHAPE_IJK, label_ijk, write_msd, write_nifti
from reference.dicom_data_set import truth_dhw, write_dicom_data_set

IDS = [f"p_{n}" for n in range(5)]
LABELS = {"0": "background", "1": "organ", "2": "tumour"}
SPLITS = [
    {"train": IDS[:2], "val": ["p_2"], "test": IDS[3:]},
    {"train": IDS[3:], "val": ["p_0"]},
]


@pytest.fixture
def source(tmp_path):
    """Scans with an organ of the value 1 around a tumour of the value 2."""
    folder = write_msd(tmp_path / "src", IDS, values=[10, 20, 30, 40, 50], labels=LABELS)
    organ = np.ones(SHAPE_IJK, np.uint8)
    organ[:2] = 0
    for case in IDS:
        write_nifti(np.maximum(organ, label_ijk(2)), folder / "labelsTr" / f"{case}.nii.gz")
    return folder


@pytest.fixture
def prepare(source, tmp_path):
    def run(**options):
        (tmp_path / "s.json").write_text(json.dumps(SPLITS))
        plan = PreparationPlan(
            kind="msd",
            source=source,
            destination=tmp_path / "dst",
            splits=tmp_path / "s.json",
            tumour_label=2,
            **options,
        )
        prepare_data_set(plan)
        return tmp_path / "dst"

    return run


def _means(cases):
    return [round(float(np.asarray(case.volume.array)[np.asarray(case.label) > 0].mean())) for case in cases]


def test_the_parts_and_folds_of_a_prepared_set(prepare):
    folder = prepare()
    assert _means(read_labelled_volumes(folder)) == [10, 20]
    assert _means(read_labelled_volumes(folder, "test", modality="CT", tumour_label=2)) == [40, 50]
    assert _means(read_labelled_volumes(folder, fold=1)) == [40, 50]
    assert _means(read_labelled_volumes(folder, "all")) == [10, 20, 30, 40, 50]
    assert _means(read_labelled_volumes(folder, "all", excluded_patients=("0", "3"))) == [20, 30, 50]


def test_a_set_needs_neither_a_label_nor_a_descriptor_to_begin_with(prepare):
    """The manifest of five cases, its rows and names repeated, is that of five hundred."""
    folder = prepare()
    _repeat(folder, 100)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        cases = read_labelled_volumes(folder, "all")
        assert len(cases) == 500
        assert _means(cases[:5]) == [10, 20, 30, 40, 50]
        assert all(case.label[tuple(case.index.object_voxels_dhw[0])] for case in cases)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for path in (folder / "cases").iterdir():
        path.unlink()
    again = read_labelled_volumes(folder, "all")
    assert all(
        np.array_equal(a.index.object_voxels_dhw, b.index.object_voxels_dhw)
        for a, b in zip(again, cases, strict=True)
    )
    with pytest.raises(ConfigError, match="p_0-0 is missing"):
        np.asarray(again[0].label)


def _repeat(folder, times):
    content = json.loads((folder / "prepared.json").read_text())
    content["cases"] = [
        case | {"case_id": f"{case['case_id']}-{n}"} for n in range(times) for case in content["cases"]
    ]
    content["splits"] = [{"train": [case["case_id"] for case in content["cases"]], "val": [], "test": []}]
    (folder / "prepared.json").write_text(json.dumps(content))
    rows = sorted((folder / "cases").glob("*.index.npy")) * times
    write_index(rows, [case["image"]["sha256"] for case in content["cases"]], folder)


def test_the_scale_is_the_scans_or_that_of_the_set(prepare):
    folder = prepare()
    (first, *_) = read_labelled_volumes(folder)
    assert (first.scale.low, first.scale.high) == (-160, 240)
    (first, *_) = read_labelled_volumes(folder, scale="set")
    assert first.scale == IntensityScale(10, 20, 15, 5, outside=15)
    assert first.outside_value == 15


def test_organs_are_on_the_grid_of_the_arrays(prepare):
    organs = "gt"
    (native, *_) = read_labelled_volumes(prepare(), organs=organs)
    assert native.organ.shape == native.label.shape == SHAPE_IJK[::-1]
    coarse = np.asarray(native.organ)
    assert coarse.sum() == 10 * 10 * 8
    folder = prepare(spacing_dhw_mm=(1, 1, 1))
    (fine, *_) = read_labelled_volumes(folder, organs=organs)
    assert fine.organ.shape == fine.label.shape == (16, 10, 12)
    assert np.array_equal(fine.organ[::2], coarse)
    (without, *_) = read_labelled_volumes(folder, organs="none")
    assert without.organ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "MR"}, "was prepared with p_0 as CT, not MR"),
        ({"tumour_label": 1}, "was prepared with the tumour label 2, not 1"),
        ({"part": "val", "excluded_patients": ("2",)}, "has no case left in 'val'"),
        ({"part": "test", "fold": 1}, "has no case left in 'test'"),
        ({"part": "some"}, "no part 'some'"),
    ],
)
def test_what_contradicts_a_prepared_set_is_refused(prepare, options, message):
    folder = prepare()
    with pytest.raises(ConfigError, match=message):
        read_labelled_volumes(folder, **options)


def test_a_folder_that_is_not_prepared_is_answered_with_the_command(source, tmp_path):
    with pytest.raises(ConfigError, match=f"run: clickvol data prepare msd {source} -o NEW_FOLDER"):
        read_labelled_volumes(source)
    with pytest.raises(ConfigError, match=r"prepared\.json is missing; run: clickvol data prepare LAYOUT"):
        read_labelled_volumes(tmp_path)


def test_labels_as_dicom(tmp_path):
    """Segment 2 is the tumour, and everything labelled the organ, although they overlap in the file."""
    folder = write_dicom_data_set(tmp_path / "set", ["a_1", "a_2"])
    prepare_data_set(
        PreparationPlan(
            kind="folder", source=folder, destination=tmp_path / "dst", tumour_label=2,
            spacing_dhw_mm="native", modality="CT",
        )
    )  # fmt: skip
    organ, tumour = truth_dhw()
    cases = read_labelled_volumes(tmp_path / "dst", "all", tumour_label=2, organs="gt")
    assert len(cases) == 2
    for case in cases:
        assert np.asarray(case.organ).sum() == organ.sum()
        np.testing.assert_array_equal(case.label, tumour)


# -- organ files ------------------------------------------------------------------------------------

FILES = "../organs/{case_id}.nii.gz"


@pytest.fixture
def organ_files(source):
    """An organ file for every case, which says something else than the label."""
    organ = np.zeros(SHAPE_IJK, np.uint8)
    organ[1, 2, 1:5] = 9
    for case in IDS:
        write_nifti(organ, source / "organs" / f"{case}.nii.gz")
    return source / "organs", organ


def test_organ_files_are_kept_in_the_set_and_move_with_it(organ_files, prepare, source, tmp_path):
    prepare(organs=FILES)
    shutil.rmtree(source)
    folder = (tmp_path / "dst").rename(tmp_path / "elsewhere")
    (case, *_) = read_labelled_volumes(folder, organs="file")
    assert case.organ.dtype == np.uint8
    assert np.argwhere(np.asarray(case.organ)).tolist() == [[k, 2, 1] for k in range(1, 5)]
    assert np.asarray(case.label).max() == 1


def test_a_changed_organ_file_makes_the_case_anew(organ_files, prepare):
    folder, organ = organ_files
    prepare(organs=FILES)
    organ[5, 5, 5] = 1
    write_nifti(organ, folder / "p_0.nii.gz")
    (case, *_) = read_labelled_volumes(prepare(organs=FILES), organs="file")
    assert np.asarray(case.organ).sum() == 5


def test_an_organ_file_that_is_missing_or_elsewhere_rejects_its_case(organ_files, prepare):
    folder, organ = organ_files
    moved = AFFINE_IJK.copy()
    moved[0, 3] += 5
    write_nifti(organ, folder / "p_3.nii.gz", moved)
    (folder / "p_1.nii.gz").unlink()
    rejected = {case.case_id: case.reason for case in read_prepared_set(prepare(organs=FILES)).rejected}
    assert set(rejected) == {"p_1", "p_3"}
    assert re.search(r"organs/p_3\.nii\.gz does not lie on the grid of", rejected["p_3"])
    assert "the organ mask cannot be used" in rejected["p_1"]


def test_a_set_without_organ_files_says_how_to_get_them(prepare):
    with pytest.raises(
        ConfigError, match="has no organ mask of p_0; run clickvol data prepare again with --organs"
    ):
        read_labelled_volumes(prepare(), organs="file")


def test_a_label_that_is_all_tumour_gives_no_organ(source, tmp_path):
    for case in IDS:
        write_nifti(label_ijk(2), source / "labelsTr" / f"{case}.nii.gz")
    prepare_data_set(PreparationPlan(kind="msd", source=source, destination=tmp_path / "dst"))
    with pytest.raises(ConfigError, match="would be the answer"):
        read_labelled_volumes(tmp_path / "dst", organs="gt")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("kidney.nii.gz", "is the same for every scan; write {case_id} into it"),
        ("{case}.nii.gz", "has a field other than {case_id}"),
        ("{}.nii.gz", "has a field other than {case_id}"),
        ("{case_id.nii.gz", "has a field other than {case_id}"),
    ],
)
def test_a_path_that_does_not_tell_scans_apart_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        PreparationPlan(kind="msd", source=Path("a"), destination=Path("b"), organs=path)

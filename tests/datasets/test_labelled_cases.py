import json

import numpy as np
import pytest

from clickvol.datasets.labelled_cases import read_folder_cases
from clickvol.datasets.organs import OrganPlan
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.errors import ConfigError
from clickvol.preprocessing.intensity import IntensityScale
from reference.data_sets import SHAPE_IJK, label_ijk, write_msd, write_nifti
from reference.dicom_data_set import truth_dhw, write_dicom_data_set

IDS = [f"p_{n}" for n in range(5)]
SPLITS = [
    {"train": IDS[:2], "val": ["p_2"], "test": IDS[3:]},
    {"train": IDS[3:], "val": ["p_0"]},
]


@pytest.fixture
def source(tmp_path):
    """Scans with an organ of the value 1 around a tumour of the value 2."""
    folder = write_msd(tmp_path / "src", IDS, values=[10, 20, 30, 40, 50])
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
    return [round(float(case.volume.array[case.label > 0].mean())) for case in cases]


def test_the_parts_and_folds_of_a_prepared_set(prepare):
    folder = prepare()
    assert _means(read_folder_cases(folder, None, ())) == [10, 20]
    assert _means(read_folder_cases(folder, "CT", (), split="test")) == [40, 50]
    assert _means(read_folder_cases(folder, None, (), fold=1)) == [40, 50]
    assert _means(read_folder_cases(folder, None, (), split="all")) == [10, 20, 30, 40, 50]
    assert _means(read_folder_cases(folder, None, ("0", "3"), split="all")) == [20, 30, 50]


def test_an_msd_folder_gives_the_same_scans_as_its_native_set(source, prepare):
    folder = prepare()
    bare = read_folder_cases(source, None, ("3",), tumour_label=2)
    mapped = read_folder_cases(folder, None, ("3",), split="all", tumour_label=2)
    assert _means(bare) == [10, 20, 30, 50]
    for one, other in zip(bare, mapped, strict=True):
        assert np.array_equal(one.volume.array, other.volume.array)
        assert np.array_equal(one.label, other.label)
        assert np.allclose(one.volume.grid.affine_ras_mm, other.volume.grid.affine_ras_mm)
        assert one.scale == other.scale
        assert one.volume.modality == other.volume.modality == "CT"


def test_the_scale_is_the_scans_or_that_of_the_set(prepare):
    folder = prepare()
    (first, *_) = read_folder_cases(folder, None, ())
    assert (first.scale.low, first.scale.high) == (-160, 240)
    (first, *_) = read_folder_cases(folder, None, (), scale="set")
    assert first.scale == IntensityScale(10, 20, 15, 5, outside=15)
    assert first.outside_value == 15


def test_organs_are_on_the_grid_of_the_arrays(prepare):
    organs = OrganPlan(source="gt")
    (native, *_) = read_folder_cases(prepare(), None, (), organs=organs)
    assert native.organ.shape == native.label.shape == SHAPE_IJK[::-1]
    assert native.organ.sum() == 10 * 10 * 8
    folder = prepare(spacing_dhw_mm=(1, 1, 1))
    (fine, *_) = read_folder_cases(folder, None, (), organs=organs)
    assert fine.organ.shape == fine.label.shape == (16, 10, 12)
    assert np.array_equal(fine.organ[::2], native.organ)
    (without, *_) = read_folder_cases(folder, None, (), organs=OrganPlan(source="none"))
    assert without.organ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "MR"}, "was prepared with p_0 as CT, not MR"),
        ({"tumour_label": 1}, "was prepared with the tumour label 2, not 1"),
        ({"split": "val", "excluded_patients": ("2",)}, "has no case left in 'val'"),
        ({"split": "test", "fold": 1}, "has no case left in 'test'"),
        ({"split": "some"}, "no part 'some'"),
    ],
)
def test_what_contradicts_a_prepared_set_is_refused(prepare, options, message):
    folder = prepare()
    with pytest.raises(ConfigError, match=message):
        read_folder_cases(**{"path": folder, "modality": None, "excluded_patients": ()} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "neither parts nor constants"),
        ({"fold": 1}, "neither parts nor constants"),
        ({"scale": "set"}, "neither parts nor constants"),
        ({"excluded_patients": ("0", "1", "2", "3", "4")}, "has no case left in 'train'"),
    ],
)
def test_what_an_msd_folder_cannot_answer_is_refused(source, options, message):
    with pytest.raises(ConfigError, match=message):
        read_folder_cases(**{"path": source, "modality": None, "excluded_patients": ()} | options)


def test_an_msd_folder_of_unknown_modality_needs_a_word(tmp_path):
    folder = write_msd(tmp_path / "t2", ["a"], modality="T2")
    with pytest.raises(ConfigError, match="says neither CT nor MR"):
        read_folder_cases(folder, None, ())
    assert read_folder_cases(folder, "MR", ())[0].volume.modality == "MR"


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.json is missing"):
        read_folder_cases(tmp_path, None, ())


@pytest.mark.parametrize("prepared", [False, True])
def test_labels_as_dicom(tmp_path, prepared):
    """Segment 2 is the tumour, and everything labelled the organ, although they overlap in the file."""
    folder = write_dicom_data_set(tmp_path / "set", ["a_1", "a_2"])
    if prepared:
        prepare_data_set(
            PreparationPlan(
                kind="folder", source=folder, destination=tmp_path / "dst", tumour_label=2,
                spacing_dhw_mm="native", modality="CT",
            )
        )  # fmt: skip
        folder = tmp_path / "dst"
    organ, tumour = truth_dhw()
    cases = read_folder_cases(folder, None, (), "all", tumour_label=2, organs=OrganPlan(source="gt"))
    assert len(cases) == 2
    for case in cases:
        assert case.label.sum() == tumour.sum()
        assert case.organ.sum() == organ.sum()
        np.testing.assert_array_equal(case.label, tumour)

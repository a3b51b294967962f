import json

import pytest

from clickvol.datasets.msd import list_msd_cases
from clickvol.errors import ConfigError


def _folder(path, names, index=None):
    for part in ("imagesTr", "labelsTr"):
        (path / part).mkdir(parents=True)
        for name in names:
            (path / part / name).write_bytes(b"")
    pairs = [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names]
    index = {"training": pairs} if index is None else index
    (path / "dataset.json").write_text(json.dumps(index), encoding="utf-8")
    return path


def test_cases_come_in_the_order_of_the_index(tmp_path):
    folder = _folder(tmp_path / "set", ["sts_007.nii.gz", "sts_002.nii.gz"])
    cases = list_msd_cases(folder, "MR")
    assert [case.case_id for case in cases] == ["sts_007", "sts_002"]
    assert {case.modality for case in cases} == {"MR"}
    assert cases[0].image == folder / "imagesTr" / "sts_007.nii.gz"
    assert cases[0].label == folder / "labelsTr" / "sts_007.nii.gz"


def test_a_case_belongs_to_the_patient_at_the_end_of_its_name(tmp_path):
    (case,) = list_msd_cases(_folder(tmp_path / "set", ["sts_ct_008.nii.gz"]), "CT")
    assert case.belongs_to(("019", "008"))
    assert not case.belongs_to(("08", "ct", "sts"))
    assert not case.belongs_to(())


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"not an MSD folder: dataset\.json is missing"):
        list_msd_cases(tmp_path, "CT")


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_file_that_is_not_there_is_named(tmp_path, part):
    folder = _folder(tmp_path / "set", ["sts_001.nii.gz", "sts_002.nii.gz"])
    (folder / part / "sts_002.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"names \./imagesTr/sts_002\.nii\.gz"):
        list_msd_cases(folder, "CT")


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "[]",
        "{}",
        '{"training": 3}',
        '{"training": [{"image": "a"}]}',
        '{"training": ["a"]}',
    ],
)
def test_an_index_of_another_form_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dataset\.json") as caught:
        list_msd_cases(tmp_path, "CT")
    assert "\n" not in str(caught.value)

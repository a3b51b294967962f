import json

import pytest

from clickvol.datasets.prepared import read_prepared_set
from reference.data_sets import label_ijk, write_msd, write_nifti
from reference.picture_folders import write_pictures

IDS = [f"p_{n}" for n in range(6)]


@pytest.fixture
def source(tmp_path):
    return write_msd(tmp_path / "src", IDS)


def test_one_command_prepares_and_says_what_it_made(run, source, tmp_path):
    outcome = run("data", "prepare", "msd", source, "-o", tmp_path / "dst")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        f"{tmp_path / 'dst'}: 6 cases of Tiny prepared, 0 rejected: 4 train, 1 val, 1 test; "
        "CT 100 to 100, mean 100, deviation 1 (fingerprint)\n"
    )
    assert len(read_prepared_set(tmp_path / "dst").cases) == 6


def test_bad_cases_are_named_and_the_rest_is_prepared(run, source, tmp_path):
    (source / "imagesTr" / "p_1.nii.gz").write_bytes(b"rubbish")
    write_nifti(label_ijk(0), source / "labelsTr" / "p_3.nii.gz")
    outcome = run("data", "prepare", "msd", source, "-o", tmp_path / "dst")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["rejected", "p_1"], ["rejected", "p_3"]]
    assert "4 cases of Tiny prepared, 2 rejected" in outcome.out


def test_nothing_left_is_a_mistake_with_its_reasons(run, source, tmp_path):
    for case in IDS:
        (source / "labelsTr" / f"{case}.nii.gz").unlink()
    outcome = run("data", "prepare", "msd", source, "-o", tmp_path / "dst")
    assert outcome.code == 2
    assert outcome.err.count("rejected: ") == 6
    assert "error: no case can be used; 6 were rejected, the first, p_0: " in outcome.err.splitlines()[-1]


def test_every_option_reaches_the_set(run, tmp_path):
    source = write_msd(tmp_path / "src", IDS, labels={"1": "kidney", "3": "tumour"})
    for case in IDS:
        write_nifti(label_ijk(3), source / "labelsTr" / f"{case}.nii.gz")
    groups, splits = tmp_path / "g.csv", tmp_path / "s.json"
    groups.write_text("case,group\n" + "".join(f"{case},g{case}\n" for case in IDS))
    splits.write_text(json.dumps([{"train": IDS[:3], "val": IDS[3:4], "test": IDS[4:]}]))
    words = ["--label", 3, "--modality", "MR", "--groups", groups, "--spacing", "2,1,1.5"]
    words += ["--splits", splits, "--seed", 5, "--force"]
    outcome = run("data", "prepare", "msd", source, "-o", tmp_path / "dst", *words)
    assert outcome.code == 0, outcome.err
    made = read_prepared_set(tmp_path / "dst")
    assert made.target_spacing_dhw_mm == (2, 1, 1.5)
    assert made.seed == 5
    assert [case.case_id for case in made.part("test")] == IDS[4:]
    assert {(c.tumour_label, c.modality, c.group) for c in made.part("val")} == {(3, "MR", "gp_3")}


@pytest.mark.parametrize(
    ("text", "spacing"), [("1.5", (1.5, 1.5, 1.5)), ("native", "native"), ("3,1,1", (3, 1, 1))]
)
def test_a_spacing_is_one_length_three_or_native(run, source, tmp_path, text, spacing):
    words = ("data", "prepare", "msd", source, "-o", tmp_path / "dst", "--spacing", text)
    assert run(*words).code == 0
    assert read_prepared_set(tmp_path / "dst").target_spacing_dhw_mm == spacing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("msd", "gone", "-o", "dst"), "gone is not a folder"),
        (("kits", "src", "-o", "dst"), "no folder like case_00000"),
        (("msd", "src", "-o", "src"), "src is the data set itself"),
        (("msd", "src", "-o", "dst", "--spacing", "1,2"), "--spacing takes native"),
        (("msd", "src", "-o", "dst", "--spacing", "0"), "--spacing takes native"),
        (("msd", "src", "-o", "dst", "--spacing", "wide"), "--spacing takes native"),
        (
            ("msd", "src", "src", "-o", "dst"),
            "2 folders are given; one data set of scans is prepared",
        ),
        (("msd", "src", "-o", "dst", "--constants", "liver"), "known are colon, kits"),
        (("msd", "src", "-o", "dst", "--splits", "gone.json"), "cannot read the splits gone.json"),
        (("msd", "src", "-o", "dst", "--label", "0"), "--label takes a value above 0 or all, not '0'"),
        (("msd", "src", "-o", "dst", "--label", "tumour"), "--label takes a value above 0 or all"),
        (("msd", "src", "-o", "dst", "--label", "2"), "no label of Tiny has the value 2; they are 1 tumour"),
        (("npz", "src", "-o", "dst", "--label", "1"), "every class is a case"),
        (("dicom", "src", "-o", "dst"), "'dicom' is not one of"),
        (("msd", "src"), "--output"),
    ],
)
def test_mistakes_are_one_line(run, source, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    outcome = run("data", "prepare", *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not (tmp_path / "dst").exists()


def test_pictures_of_two_data_sets_are_prepared_by_one_command(run, tmp_path):
    first = write_pictures(tmp_path / "a", [f"p{n}" for n in range(5)])
    second = write_pictures(tmp_path / "b", [f"q{n}" for n in range(5)], first_seed=9)
    (second[0] / "q2.png").write_bytes(b"rubbish")
    words = ["data", "prepare", "pictures", *first, *second, "-o", tmp_path / "dst"]
    outcome = run(*words, "--name", "polyps", "--name", "skin")
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines() == [
        f"rejected: skin-q2: {second[0]}/q2.png is not a PNG, JPEG or TIFF picture that can be read, whatever "
        "its name; save it as PNG"
    ]
    assert outcome.out == (
        f"{tmp_path / 'dst'}: 9 cases of polyps+skin prepared, 1 rejected: 5 train, 2 val, 2 test\n"
    )
    for faulty, reason in (
        ([*words[:-2], "-o", first[0]], "holds the pictures themselves"),
        ([*words, "--name", "polyps"], "2 pairs of folders have 1 names"),
        (
            [*words, "--name", "polyps", "--name", "../skin"],
            "'../skin' cannot name a data set: letters",
        ),
        ([*words, "--spacing", "1"], "--spacing is for scans"),
        (["data", "prepare", "pictures", first[0], "-o", tmp_path / "x"], "pictures come in pairs of folders"),
        (
            ["data", "prepare", "folder", first[0], "-o", tmp_path / "x", "--name", "a"],
            "--name is for pictures",
        ),
    ):
        outcome = run(*faulty)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert reason in outcome.err

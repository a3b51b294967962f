import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from clickvol.methods.promise2d import Promise2d
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from reference.forked_program import ForkedProgram
from reference.tiny_models2d import tiny_promise2d_config, write_model2d

SHAPE_HW = (40, 56)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Cards of networks with random weights, by name."""
    torch.manual_seed(0)
    made = {}
    for name, network in (
        ("sam2d", Sam2d(sam2d_preset("tiny"))),
        ("promise2d", Promise2d(tiny_promise2d_config("promise"))),
        ("ips", Promise2d(tiny_promise2d_config("ips"))),
    ):
        method = "sam2d" if name == "sam2d" else "promise2d"
        made[name] = write_model2d(tmp_path_factory.mktemp(name), network, method)
    return made


@pytest.fixture
def picture(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (*SHAPE_HW, 3), np.uint8)
    levels[4:15, 30:50] = 255
    Image.fromarray(levels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture
def truth(tmp_path):
    mask = np.zeros(SHAPE_HW, np.uint8)
    mask[4:15, 30:50] = 255
    Image.fromarray(mask).save(tmp_path / "truth.png")
    return tmp_path / "truth.png"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", ["sam2d", "promise2d"])
def test_the_command_segments_a_picture(run, picture, tmp_path, models, name):
    words = ["segment-image", picture, "--model", models[name], "--click", "40,9"]
    words += ["--click", "3,30:-", "--box", "30,4,49,14", "--preview", tmp_path / "p.png", "--json"]
    program = ForkedProgram([*words, "-o", tmp_path / "a.png"])
    out, err = program.communicate()
    assert program.poll() == 0, err
    first = json.loads(out)
    # Loaded a second time, in another process, it answers the same.
    assert run(*words, "-o", tmp_path / "b.png").code == 0
    returned = pixels(tmp_path / "a.png")
    assert returned.shape == SHAPE_HW
    assert returned.dtype == np.uint8
    assert set(np.unique(returned)) <= {0, 255}
    assert np.array_equal(returned, pixels(tmp_path / "b.png"))
    assert first["pixels"] == (returned == 255).sum()
    assert first["image_rows_columns"] == [40, 56]
    assert first["model"] == f"tiny-{name}"
    assert first["points_from"] == "user"
    assert first["points"] == [
        {"column_row": [40, 9], "foreground": True},
        {"column_row": [3, 30], "foreground": False},
    ]
    assert first["box_first_and_last_column_row"] == [30, 4, 49, 14]
    assert first["slice"] is None
    assert pixels(tmp_path / "p.png").shape[1] == 56 * (768 // 56)


def test_the_model_points_itself(run, picture, tmp_path, models):
    words = ("--points", "auto", "--model", models["promise2d"], "--json")
    code, out, _ = run("segment-image", picture, "-o", tmp_path / "m.png", *words)
    assert code == 0
    result = json.loads(out)
    assert result["points_from"] == "auto"
    assert [p["foreground"] for p in result["points"]].count(True) == 2
    assert len(result["points"]) == 4


def test_points_of_the_truth_are_said_to_be_for_evaluation_only(run, picture, truth, tmp_path, models):
    def draw(seed):
        words = ("--points", "gt", "--truth", truth, "--num-points", 6, "--seed", seed, "--json")
        code, out, err = run(
            "segment-image", picture, "-o", tmp_path / "m.png", "--model", models["sam2d"], *words
        )
        assert code == 0
        assert "drawn from the truth; this is for evaluation only" in err
        return json.loads(out)

    first, again, other = draw(3), draw(3), draw(4)
    assert first["points"] == again["points"] != other["points"]
    for point in first["points"]:
        column, row = map(int, point["column_row"])
        assert (pixels(truth)[row, column] > 0) == point["foreground"]
    mask, true = pixels(tmp_path / "m.png") > 0, pixels(truth) > 0
    expected = 2 * (mask & true).sum() / (mask.sum() + true.sum())
    assert other["truth_dice"] == pytest.approx(expected, abs=1e-4)


def slice_words(scan, output, model, *words):
    return ("segment-image", scan, "-o", output, "--model", model, "--json", *words)


def test_a_slice_of_a_scan_is_written_on_its_grid_and_as_a_picture(run, scan, tmp_path, models):
    # The scan runs i to the left, j to the back, k to the head: axial slices lie as stored.
    words = ("--slice", 7, "--click", "20,18")
    code, out, _ = run(*slice_words(scan, tmp_path / "m.nii.gz", models["sam2d"], *words))
    assert code == 0
    result = json.loads(out)
    assert result["slice"] == {"axis": "axial", "index": 7, "modality": "CT"}
    assert result["points"][0] == {"column_row": [20, 18], "ijk": [20, 18, 7], "foreground": True}
    assert run(*slice_words(scan, tmp_path / "m.png", models["sam2d"], *words)).code == 0
    before, after = nibabel.load(scan), nibabel.load(tmp_path / "m.nii.gz")
    assert np.array_equal(before.affine, after.affine)
    values = np.asarray(after.dataobj)
    assert values.shape == before.shape
    assert values.dtype == np.uint8
    picture = pixels(tmp_path / "m.png")
    assert 0 < (picture > 0).sum() < picture.size
    assert np.array_equal(values[:, :, 7].T, picture > 0)
    assert values.sum() == result["pixels"] == (picture > 0).sum()


def test_coronal_and_stored_slices_lie_where_they_say(run, scan, tmp_path, models):
    for axis, points, ijk in (("coronal", "5,2", [5, 9, 17]), ("j", "5,17", [5, 9, 17])):
        words = ("--slice", 9, "--axis", axis, "--click", points)
        code, out, _ = run(*slice_words(scan, tmp_path / f"{axis}.mha", models["ips"], *words))
        assert code == 0
        result = json.loads(out)
        assert result["image_rows_columns"] == [20, 40]
        assert result["points"][0]["ijk"] == ijk


def test_the_truth_of_a_slice_is_cut_as_the_scan(run, scan, write_scan, ct_array, tmp_path, models):
    truth = write_scan((ct_array == 120).astype(np.uint8), "truth.nii.gz")
    words = ("--slice", 10, "--points", "gt", "--truth", truth, "--axis", "sagittal", "--slice", 20)
    code, out, _ = run(*slice_words(scan, tmp_path / "m.nii.gz", models["sam2d"], *words))
    assert code == 0
    for point in json.loads(out)["points"]:
        i, j, k = map(int, point["ijk"])
        assert (ct_array[i, j, k] == 120) == point["foreground"]
    image = nibabel.load(truth)
    # Entry by entry it is within 0.01 mm; in the far corner it is not.
    leaning = image.affine + 9e-3 * np.eye(4)[:, [2, 0, 1, 3]] * [1, 1, 1, 0]
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), leaning), tmp_path / "leaning.nii.gz")
    words = ("--slice", 10, "--points", "gt", "--truth", tmp_path / "leaning.nii.gz")
    code, _, err = run(*slice_words(scan, tmp_path / "n.nii.gz", models["sam2d"], *words))
    assert (code, "does not lie on the grid" in err) == (2, True)
    other = write_scan((ct_array == 120).astype(np.uint8)[1:], "other.nii.gz")
    words = ("--slice", 10, "--points", "gt", "--truth", other)
    code, _, err = run(*slice_words(scan, tmp_path / "n.nii.gz", models["sam2d"], *words))
    assert (code, "does not lie on the grid" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "nothing says where the object is"),
        (("--click", "3,3:-"), "nothing says where the object is"),
        (
            ("--click", "56,3"),
            "click 56,3 is not in the image; its columns are 0 to 55 and rows 0 to 39",
        ),
        (("--click", "3,-1"), "rows 0 to 39"),
        (("--click", "3"), "cannot read the click '3'; give 2 finite numbers"),
        (("--click", "3,nan"), "give 2 finite numbers"),
        (("--box", "1,2,3"), "give 4 finite numbers"),
        (("--box", "9,2,3,8"), "is not one in the image"),
        (("--click", "3,3", "--slice", "1"), "has no slices; leave out --slice"),
        (("--click", "3,3", "--points", "auto"), "leave them out"),
        (("--points", "auto"), "tiny-sam2d predicts no points"),
        (("--points", "gt"), "give it with --truth"),
        (("--click", "3,3", "--truth", "small.png"), "has 3 columns and 2 rows"),
        (("--click", "3,3", "-o", "m.nii.gz"), "the mask of a picture is a .png file"),
        (("--click", "3,3", "-o", "in.png"), "in.png is the scan itself or an input"),
        (("--click", "3,3", "--preview", "m.png"), "named for two outputs"),
        (("--click", "3,3", "--model", "promise3d-small"), "cannot do this"),
        (("--click", "3,3", "--model", "nothing"), "there is no model 'nothing'"),
        (("--click", "3,3", "--model", "litemedsam"), "clickvol models fetch litemedsam"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(run, picture, tmp_path, models, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    Image.fromarray(np.zeros((2, 3), np.uint8)).save("small.png")
    before = {p.name for p in tmp_path.iterdir()}
    code, out, err = run(
        "segment-image", picture, "-o", "m.png", "--model", models["sam2d"], *words
    )  # fmt: skip
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert line in err
    assert {p.name for p in tmp_path.iterdir()} == before


def test_a_scan_needs_one_of_its_slices(run, scan, tmp_path, models):
    for words, line in (
        ((), "say which of its axial slices 0 to 19 with --slice"),
        (("--slice", 20), "no axial slice 20; its axial slices are 0 to 19"),
        (("--slice", 40, "--axis", "sagittal"), "sagittal slices are 0 to 39"),
    ):
        code, _, err = run(*slice_words(scan, tmp_path / "m.nii.gz", models["sam2d"], "--click", "3,3", *words))
        assert (code, line in err) == (2, True), err


def test_weights_that_are_fetched_but_not_imported_are_told_how(run, picture, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("CLICKVOL_CACHE", str(cache))
    words = ("segment-image", picture, "-o", tmp_path / "m.png", "--click", "3,3")
    assert run(*words).err.endswith("get it with: clickvol models fetch litemedsam\n")
    original = cache / "originals" / "lite_medsam.pth"
    original.parent.mkdir(parents=True)
    original.write_bytes(b"weights")
    folder = cache / "models" / "litemedsam"
    assert f"models import {original} -o {folder} --id litemedsam" in run(*words).err


def test_segment_takes_a_picture_as_segment_image_does(run, picture, tmp_path, models):
    words = [picture, "--model", models["sam2d"], "--click", "40,9", "--box", "30,4,49,14", "--quiet"]
    for name, command in (("a", "segment"), ("b", "segment-image")):
        outcome = run(command, *words, "-o", tmp_path / f"{name}.png")
        assert outcome.code == 0, outcome.err
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    outcome = run("segment", *words, "--line", "1,1,1,2,2,2", "-o", tmp_path / "c.png")
    assert outcome.code == 2
    assert "--line" in outcome.err
    assert not (tmp_path / "c.png").exists()

"""Each mistake of a user: exit code 2, one line on stderr, nothing on stdout, and no file."""

import json
import pickle
import shutil

import nibabel
import numpy as np
import pytest

CLICK = "20,18,10"


@pytest.fixture
def fails(run, tmp_path, tiny_model):
    """Run a segment command that must fail; return what it said."""

    def run_it(scan, *words, click=CLICK, output=None, model=tiny_model):
        before = set(tmp_path.rglob("*"))
        code, out, err = run(
            "segment", scan, "--click", click, "-o", output or tmp_path / "mask.nii.gz",
            "--model", model, *words,
        )  # fmt: skip
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert set(tmp_path.rglob("*")) == before
        return err

    return run_it


def test_a_missing_scan(fails, tmp_path):
    assert "does not exist" in fails(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("kept", [0, 10, 300, 0.5])
def test_a_truncated_scan(fails, scan, kept):
    content = scan.read_bytes()
    scan.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert "scan.nii.gz" in fails(scan)


@pytest.mark.parametrize("name", ["text.nii", "text.nii.gz", "text.nrrd", "text.mha", "text.txt"])
def test_a_file_that_is_no_image(fails, tmp_path, name):
    path = tmp_path / name
    path.write_text("not an image\n" * 100)
    assert name in fails(path)


def test_a_4d_scan_says_how_to_choose_a_volume(fails, write_scan, ct_array):
    scan = write_scan(np.stack([ct_array, ct_array, ct_array], axis=-1))
    assert "--volume" in fails(scan)
    assert "0 to 2" in fails(scan, "--volume", "3")


def test_an_rgb_scan(fails, tmp_path):
    rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii.gz")
    assert "RGB" in fails(tmp_path / "rgb.nii.gz", click="1,1,1")


@pytest.mark.parametrize("click", ["40,18,10", "20,36,10", "20,18,20", "-1,18,10"])
def test_a_click_outside_says_the_valid_range(fails, scan, click):
    assert "i 0..39, j 0..35, k 0..19" in fails(scan, click=click)


@pytest.mark.parametrize("space", ["ras", "lps"])
def test_a_click_outside_in_millimetres_says_the_extent(fails, scan, space):
    err = fails(scan, "--space", space, click="500,0,0")
    assert "x -28.0..50.0" in err
    assert "z -30.0..46.0" in err


def test_a_second_click_outside(fails, scan):
    assert "outside" in fails(scan, "--click", "99,1,1:-")


@pytest.mark.parametrize("click", ["nan,18,10", "20,inf,10"])
def test_a_click_that_is_not_finite(fails, scan, click):
    assert "give 3 finite numbers" in fails(scan, click=click)


def test_a_click_that_is_no_click(fails, scan):
    assert "cannot read the click '20,18'" in fails(scan, click="20,18")


def test_only_background_clicks(fails, scan):
    assert "no click inside the object" in fails(scan, "--click", "3,3,3:-", click=f"{CLICK}:-")


@pytest.mark.parametrize("zooms", [(0.0, 1.0, 1.0), (1.0, 1.0, -2.0)])
def test_a_spacing_that_is_not_above_zero(fails, tmp_path, zooms):
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), None)
    image.header.set_qform(None, 0)
    image.header.set_sform(None, 0)
    image.header["pixdim"][1:4] = zooms
    nibabel.save(image, tmp_path / "flat.nii")
    assert "spacing" in fails(tmp_path / "flat.nii", click="1,1,1")


def test_a_singular_affine(fails, tmp_path):
    affine = np.eye(4)
    affine[:3, 2] = affine[:3, 1]
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), None)
    image.header.set_qform(None, 0)
    image.header.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "singular.nii")
    assert "singular" in fails(tmp_path / "singular.nii", click="1,1,1")


def test_a_folder_without_dicom_files(fails, tmp_path):
    (tmp_path / "series").mkdir()
    assert "series" in fails(tmp_path / "series")


def test_a_series_of_a_file_that_is_no_folder(fails, scan):
    assert "--series" in fails(scan, "--series", "3")


def test_a_mask_in_a_missing_folder(fails, scan, tmp_path):
    assert "does not exist" in fails(scan, output=tmp_path / "missing" / "mask.nii.gz")


def test_a_mask_that_is_the_scan(fails, scan):
    before = scan.read_bytes()
    assert "scan itself" in fails(scan, output=scan)
    assert scan.read_bytes() == before


def test_a_mask_that_is_the_scan_under_another_name(fails, scan, tmp_path):
    (tmp_path / "link.nii.gz").symlink_to(scan)
    assert "scan itself" in fails(scan, output=tmp_path / "link.nii.gz")


def test_a_mask_of_unknown_format(fails, scan, tmp_path):
    assert ".nrrd" in fails(scan, output=tmp_path / "mask.stl")


def test_probabilities_in_a_missing_folder(fails, scan, tmp_path):
    assert "does not exist" in fails(scan, "--probability", tmp_path / "missing" / "p.nii.gz")


def test_probabilities_over_the_scan(fails, scan):
    assert "scan itself" in fails(scan, "--probability", scan)


@pytest.mark.parametrize("name", ["picture.jpg", "picture"])
def test_a_preview_that_is_no_png(fails, scan, tmp_path, name):
    assert ".png" in fails(scan, "--preview", tmp_path / name)


def test_a_preview_in_a_missing_folder(fails, scan, tmp_path):
    assert "does not exist" in fails(scan, "--preview", tmp_path / "missing" / "p.png")


def test_a_preview_that_is_a_folder(fails, scan, tmp_path):
    (tmp_path / "folder.png").mkdir()
    assert "folder" in fails(scan, "--preview", tmp_path / "folder.png")


def test_two_outputs_in_one_file(fails, scan, tmp_path):
    assert "two outputs" in fails(scan, "--probability", tmp_path / "mask.nii.gz")


def test_an_unknown_model(fails, scan):
    assert "there is no model 'nonsense'" in fails(scan, model="nonsense")


def test_an_unknown_model_is_told_before_the_scan_is_read(fails, tmp_path):
    assert "there is no model" in fails(tmp_path / "nowhere.nii.gz", model="nonsense")


@pytest.fixture
def copied_model(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.parent, folder)
    return folder / tiny_model.name


def test_damaged_weights(fails, scan, copied_model):
    weights = copied_model.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "sha256" in fails(scan, model=copied_model)


def test_missing_weights(fails, scan, copied_model):
    copied_model.with_suffix(".safetensors").unlink()
    assert "missing" in fails(scan, model=copied_model)


def test_a_card_that_is_none(fails, scan, copied_model):
    copied_model.write_text("{}")
    assert "not a model card" in fails(scan, model=copied_model)


def test_weights_that_would_run_code_are_refused_and_run_nothing(fails, scan, copied_model):
    mark = copied_model.parent / "it-ran"
    weights = copied_model.with_suffix(".safetensors")
    weights.write_bytes(pickle.dumps(_Bomb(str(mark)), protocol=4))
    assert "pickle" in fails(scan, model=copied_model)
    assert not mark.exists()


class _Bomb:
    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return (open, (self._mark, "w"))


def test_a_device_that_is_not_there(fails, scan):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "cuda" in fails(scan, "--device", "cuda").lower()


def test_json_on_stdout_stays_empty_after_a_mistake(fails, scan):
    assert "outside" in fails(scan, "--json", click="99,99,99")


def test_a_card_beside_it_is_found_from_the_weights(fails, scan, copied_model):
    card = json.loads(copied_model.read_text())
    copied_model.write_text(json.dumps({**card, "sha256": "0" * 64}))
    assert "sha256" in fails(scan, model=copied_model.with_suffix(".safetensors"))

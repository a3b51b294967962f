import json
import platform
import subprocess
import sys
from importlib.metadata import version

import nibabel
import numpy as np
import pytest
import SimpleITK as Sitk
from PIL import Image

from clickvol.geometry.box import bounding_box
from clickvol.io.volume import Mask
from clickvol.predict import scan_predictor
from clickvol.predict.segmentation import FieldOfViewReport, Segmentation
from clickvol.previews import preview as preview_module
from clickvol.version import __version__

CLICK = "20,18,10"


@pytest.fixture
def known_answer(monkeypatch):
    """Replace the network's answer by a block: i 16..23, j 14..21, k 8..12, of 2 x 2 x 4 mm voxels."""
    seen = {}

    def fake_segment(volume, clicks, model, *, modality=None, organ_mask=None, procedure="clickvol"):
        seen.update(volume=volume, clicks=clicks, model=model, modality=modality)
        array = np.zeros(volume.grid.shape_dhw, np.uint8)
        array[8:13, 14:22, 16:24] = 1
        box = bounding_box(array)
        return Segmentation(
            mask=Mask(array, volume.grid),
            prompts=tuple(clicks),
            prompts_used=(),
            modality=modality or "CT",
            model_id=model.card.id,
            procedure=procedure,
            fields_of_view=(FieldOfViewReport(4.0, (1.0, 2.0, 3.0), (64.0, 64.0, 64.0), "first"),),
            seconds={"encode": 0.25},
            warnings=("be careful",),
            probability_box=box,
            probability_in_box=np.full(box.shape_dhw, 0.75, np.float32),
        )

    monkeypatch.setattr(scan_predictor, "segment", fake_segment)
    return seen


@pytest.fixture
def segment(run, scan, tmp_path, tiny_model):
    """Run a segment command on the scan with the tiny model."""

    def run_it(*words, output=tmp_path / "mask.nii.gz", click=CLICK, scan=scan):
        return run(
            "segment", scan, "--click", click, "-o", output, "--model", tiny_model, *words
        )  # fmt: skip

    return run_it


def test_the_console_entry_point_writes_a_mask_on_the_grid_of_the_scan(scan, tmp_path, tiny_model):
    mask, picture, probability = (tmp_path / n for n in ("m.nii.gz", "p.png", "prob.nii.gz"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "clickvol", "segment", scan, "--click", CLICK, "-o", mask),
            *("--model", tiny_model, "--preview", picture, "--probability", probability),
            *("--modality", "CT", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    before, after = nibabel.load(scan), nibabel.load(mask)
    assert after.get_data_dtype() == np.uint8
    assert after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    for form in ("sform_code", "qform_code"):
        assert after.header[form] == before.header[form]
    values = np.asarray(after.dataobj)
    assert set(np.unique(values)) <= {0, 1}
    assert result["voxels"] == values.sum()
    probabilities = np.asarray(nibabel.load(probability).dataobj)
    assert probabilities.dtype == np.float32
    assert 0 <= probabilities.min() <= probabilities.max() <= 1
    assert (probabilities[values == 1] > 0.5).all()
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "m.nii.gz", "p.png", "prob.nii.gz", "scan.nii.gz",
    ]  # fmt: skip


def test_json_is_all_that_is_on_stdout_and_complete(segment, known_answer, tmp_path):
    code, out, err = segment("--json", "--modality", "MR")
    assert code == 0
    assert err == "warning: be careful\n"
    result = json.loads(out)
    assert set(result["seconds"]) == {"read", "load_model", "first_click", "write", "total"}
    del result["seconds"]
    assert result == {
        "mask": str(tmp_path / "mask.nii.gz"),
        "probability": None,
        "preview": None,
        "scan": str(tmp_path / "scan.nii.gz"),
        "modality": "MR",
        "model": "tiny",
        "volume_ml": 5 * 8 * 8 * 16 / 1000,
        "voxels": 5 * 8 * 8,
        "bounding_box_ijk_first_and_last_inclusive": [[16, 14, 8], [23, 21, 12]],
        # x = 50 - 2 i and y = 40 - 2 j, so that the last index is the lowest millimetre.
        "bounding_box_ras_mm_lowest_and_highest": [[3.0, -3.0, 0.0], [19.0, 13.0, 20.0]],
        "procedure": "clickvol",
        "fields_of_view": [
            {
                "voxel_mm": 4.0,
                "centre_ras_mm": [1.0, 2.0, 3.0],
                "extent_dhw_mm": [64.0, 64.0, 64.0],
                "reason": "first",
            }
        ],
        "prompts_used": [],
        "expected_dice": None,
        "expected_dice_interval": None,
        "comparable_patients": None,
        "candidates": [],
        "next_click_ijk": [18, 16, 9],
        "warnings": ["be careful"],
        "seconds_of_first_click": {"encode": 0.25},
        "versions": {
            "clickvol": __version__,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }


def test_the_summary_says_what_was_found_and_where_it_is(segment, known_answer, tmp_path):
    code, out, err = segment("--preview", tmp_path / "picture.png")
    assert code == 0
    assert out.startswith(f"{tmp_path}/mask.nii.gz: 5.1 ml, 320 voxels (CT, tiny, ")
    assert f"{tmp_path}/picture.png: preview" in out
    assert err == "warning: be careful\n"


def test_quiet_prints_nothing(segment, known_answer):
    assert segment("--quiet") == (0, "", "")


def test_quiet_json_prints_only_json(segment, known_answer):
    code, out, err = segment("--quiet", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["voxels"] == 320


def test_clicks_keep_their_order_sign_and_space(segment, known_answer):
    assert segment("--click", "21,18,10:-", "--click", "22,18,10:+").code == 0
    assert [c.foreground for c in known_answer["clicks"]] == [True, False, True]
    assert [c.position.to_ijk() for c in known_answer["clicks"]] == [
        (20, 18, 10), (21, 18, 10), (22, 18, 10),
    ]  # fmt: skip


@pytest.mark.parametrize(("space", "click"), [("ras", "-12.5,4,10"), ("lps", "12.5,-4,10")])
def test_negative_millimetres_are_no_options(segment, known_answer, space, click):
    assert segment("--space", space, click=click).code == 0
    (only,) = known_answer["clicks"]
    assert only.world(known_answer["volume"].grid).as_array().tolist() == [-12.5, 4, 10]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_the_suffix_chooses_the_format(segment, known_answer, tmp_path, suffix):
    output = tmp_path / f"mask.v1{suffix}"
    assert segment(output=output).code == 0
    image = Sitk.ReadImage(str(output))
    assert image.GetSize() == (40, 36, 20)
    assert image.GetPixelID() == Sitk.sitkUInt8
    np.testing.assert_allclose(image.GetOrigin(), (-50, -40, -30), atol=1e-5)
    assert Sitk.GetArrayFromImage(image).sum() == 320


def test_a_volume_of_a_4d_scan(segment, known_answer, write_scan, ct_array):
    scan = write_scan(np.stack([ct_array, ct_array + 7], axis=-1), "two.nii.gz")
    assert segment("--volume", "1", scan=scan).code == 0
    assert known_answer["volume"].array[10, 18, 20] == 127


def test_what_the_reader_mended_is_told_once(segment, known_answer, write_scan, ct_array):
    broken = ct_array.astype(np.float32)
    broken[0, 0, :3] = np.nan
    code, out, err = segment("--json", scan=write_scan(broken, "nan.nii.gz"))
    assert code == 0
    notes = [line for line in json.loads(out)["warnings"] if "3" in line]
    assert len(notes) == 1
    assert err.count("\n") == 2


def test_an_existing_mask_is_replaced(segment, known_answer, tmp_path):
    (tmp_path / "mask.nii.gz").write_text("old")
    assert segment().code == 0
    assert np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj).sum() == 320


def test_a_late_failure_leaves_the_old_mask_and_no_new_file(segment, known_answer, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(preview_module, "draw_preview", fail)
    (tmp_path / "mask.nii.gz").write_text("old")
    code, out, err = segment("--preview", tmp_path / "p.png", "--probability", tmp_path / "q.nrrd")
    assert (code, out) == (1, "")
    assert "no picture today" in err
    assert (tmp_path / "mask.nii.gz").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.nii.gz", "scan.nii.gz"]


def test_probabilities_lie_on_the_grid_of_the_scan(segment, known_answer, tmp_path):
    assert segment("--probability", tmp_path / "p.nii.gz").code == 0
    image = nibabel.load(tmp_path / "p.nii.gz")
    values = np.asarray(image.dataobj)
    assert np.array_equal(image.affine, nibabel.load(tmp_path / "scan.nii.gz").affine)
    assert (values[16:24, 14:22, 8:13] == 0.75).all()
    assert np.count_nonzero(values) == 320

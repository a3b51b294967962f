"""Requests that contradict themselves, and the stages of one that is done.

What a request gives is tested through `clickvol segment`, `segment-image` and `batch`.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from clickvol.errors import ClickError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Volume
from clickvol.predict.segmentation_request import ImageRequest, SegmentationRequest, _warnings, run_request
from clickvol.prompts.click import Click
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts

POINT = ImagePrompts((ImageClick(1, 2),))
BACKGROUND = ImagePrompts((ImageClick(1, 2, foreground=False),))
NOTHING = ImagePrompts()
NOWHERE = "nothing says where the object is; give a --click inside it or a --box around it"
USER = "clicks and boxes go with the points of a user, not with '{}'; leave them out"


@pytest.mark.parametrize(
    ("name", "dicom", "expected"),
    [
        ("m.dcm", None, "dicom-seg"),
        ("m.DCM", "seg", "dicom-seg"),
        ("m.dcm", "rtstruct", "rtstruct"),
        ("m.nii.gz", None, None),
    ],
)
def test_the_suffix_says_whether_the_mask_is_dicom(name, dicom, expected):
    request = SegmentationRequest(scan=Path("s"), clicks=(), mask=Path(name), dicom=dicom)
    assert request.dicom_format == expected


def test_a_kind_of_dicom_needs_its_suffix():
    expected = r"^a mask as DICOM seg ends in \.dcm, not 'm\.nrrd'; rename one or the other$"
    with pytest.raises(ConfigError, match=expected):
        SegmentationRequest(scan=Path("s"), clicks=(), mask=Path("m.nrrd"), dicom="seg")


def test_candidates_lie_beside_the_mask_and_are_no_dicom():
    names = {
        "m.nii.gz": "m-2.nii.gz",
        "a.b.NII.ZST": "a.b-2.NII.ZST",
        "m.v1.nrrd": "m.v1-2.nrrd",
        "m.nii": "m-2.nii",
    }
    for name, expected in names.items():
        request = SegmentationRequest(scan=Path("s"), clicks=(), mask=Path("f") / name, candidates=True)
        assert request.candidate_path(2) == Path("f") / expected
    expected = r"^candidates are not written as DICOM; choose one first, from \.nii\.gz files$"
    with pytest.raises(ConfigError, match=expected):
        SegmentationRequest(scan=Path("s"), clicks=(), mask=Path("m.dcm"), candidates=True)


def test_an_empty_mask_and_what_the_file_tells_are_warnings_said_once():
    grid = VolumeGrid.axial((2, 3, 4), (1.0, 1.0, 1.0))
    volume = Volume(np.zeros((2, 3, 4), np.int16), grid, notes=("a note", "said twice"))
    click = Click(VoxelPoint(0, 0, 0))
    for prompts, where in (((click,), "at the click"), ((), "in the scan")):
        empty = f"nothing was found {where}; the mask is empty"
        for voxels, expected in (
            (0, ("a note", "said twice", "slow", empty)),
            (1, ("a note", "said twice", "slow")),
        ):
            mask = np.zeros((2, 3, 4), np.uint8)
            mask[0, 0, :voxels] = 1
            answer = SimpleNamespace(mask=Mask(mask, grid), prompts=prompts, warnings=("said twice", "slow"))
            assert _warnings(volume, answer) == expected


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"prompts": NOTHING}, ClickError, NOWHERE),
        ({"prompts": BACKGROUND}, ClickError, NOWHERE),
        ({"prompts": POINT, "points": "auto"}, ClickError, USER.format("auto")),
        ({"prompts": ImagePrompts(box_xyxy_pixel=(1, 2, 3, 4)), "points": "gt"}, ClickError, USER.format("gt")),
        (
            {"prompts": NOTHING, "points": "gt"},
            ConfigError,
            "points 'gt' are drawn from a known mask; give it with --truth",
        ),
        (
            {"prompts": POINT, "slice_index": 0},
            ConfigError,
            "in.png is a picture and has no slices; leave out --slice",
        ),
        (
            {"prompts": POINT, "mask": Path("m.nii.gz")},
            OutputError,
            "the mask of a picture is a .png file, which 'm.nii.gz' is not; rename it",
        ),
    ],
)
def test_an_image_request_that_contradicts_itself_is_refused(words, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        ImageRequest(**{"image": Path("in.png"), "mask": Path("m.png"), **words})


def test_a_box_alone_says_where_the_object_is():
    box = ImagePrompts(box_xyxy_pixel=(1, 2, 3, 4))
    assert ImageRequest(image=Path("scan.nii"), mask=Path("m.nii"), prompts=box).is_picture is False


def test_stages_are_told_in_order_and_times_add_up(tmp_path):
    array = np.random.default_rng(0).normal(40, 30, (24, 24, 12)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([3.0, 3, 3, 1])), tmp_path / "scan.nii.gz")
    stages = []
    result = run_request(
        SegmentationRequest(
            scan=tmp_path / "scan.nii.gz",
            clicks=(Click.at((12, 12, 6)),),
            mask=tmp_path / "mask.nii.gz",
            modality="CT",
            device="cpu",
        ),
        on_stage=stages.append,
    )
    assert [stage.split()[0] for stage in stages] == ["reading", "loading", "segmenting", "writing"]
    assert list(result.seconds) == ["read", "load_model", "first_click", "write", "total"]
    parts = [seconds for name, seconds in result.seconds.items() if name != "total"]
    assert min(parts) > 0
    assert result.seconds["total"] == pytest.approx(sum(parts))
    assert sum(result.segmentation.seconds.values()) <= result.seconds["first_click"]
    written = np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(written, result.segmentation.mask.array.transpose(2, 1, 0))

"""Requests that contradict themselves, and the stages of one that is done.

What a request gives is tested through `clickvol segment`, `segment-image` and `batch`.
"""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from clickvol.errors import ClickError, ConfigError, OutputError
from clickvol.predict.segmentation_request import ImageRequest, SegmentationRequest, run_request
from clickvol.prompts.click import Click
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts

POINT = ImagePrompts((ImageClick(1, 2),))
BACKGROUND = ImagePrompts((ImageClick(1, 2, foreground=False),))
NOTHING = ImagePrompts()


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
    with pytest.raises(ConfigError, match=r"ends in \.dcm, not 'm.nrrd'"):
        SegmentationRequest(scan=Path("s"), clicks=(), mask=Path("m.nrrd"), dicom="seg")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"prompts": NOTHING}, ClickError, "nothing says where"),
        ({"prompts": BACKGROUND}, ClickError, "nothing says where"),
        ({"prompts": POINT, "points": "auto"}, ClickError, "leave them out"),
        ({"prompts": NOTHING, "points": "gt"}, ConfigError, "--truth"),
        ({"prompts": POINT, "slice_index": 0}, ConfigError, "has no slices"),
        ({"prompts": POINT, "mask": Path("m.nii.gz")}, OutputError, r"a \.png file"),
    ],
)
def test_an_image_request_that_contradicts_itself_is_refused(words, error, message):
    with pytest.raises(error, match=message):
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

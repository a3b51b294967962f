"""Drawings from files: every form of the points, and what is refused."""

import json

import numpy as np
import pytest

from clickvol import Mask, Volume, write_mask
from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.drawing_files import DrawingFile
from clickvol.prompts.spatial import GivenMask, Lasso, Scribble

GRID = VolumeGrid.axial((6, 10, 12), (3.0, 1.0, 1.0))
SCAN = Volume(np.arange(720, dtype=np.float32).reshape(6, 10, 12), GRID)
VOXELS = [(1, 2, 2), (1, 2, 5)]
EXPECTED = Scribble.along([VoxelPoint(*v) for v in VOXELS], GRID)
IJK = [list(v[::-1]) for v in VOXELS]
LPS = [list(GRID.to_world(VoxelPoint(*v)).to_lps()) for v in VOXELS]


@pytest.mark.parametrize(
    "content",
    [
        IJK,
        [IJK],
        {"points": IJK},
        {"points": LPS, "space": "lps"},
        {"markups": [{"coordinateSystem": "LPS", "controlPoints": [{"position": p} for p in LPS]}]},
    ],
)
def test_points_in_every_form(tmp_path, content):
    path = tmp_path / "stroke.json"
    path.write_text(json.dumps(content))
    assert DrawingFile("scribble", path).read(SCAN) == [EXPECTED]


def test_an_image_is_what_was_drawn(tmp_path):
    path = tmp_path / "drawn.nii.gz"
    write_mask(Mask(EXPECTED.voxels.full(GRID.shape_dhw).astype(np.uint8), GRID), path)
    for kind, expected in (("scribble", Scribble), ("lasso", Lasso), ("mask", GivenMask)):
        assert DrawingFile(kind, path).read(SCAN) == [expected(EXPECTED.voxels)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[1, 2]]", "holds no points"),
        ("{", "holds no points"),
        ("[]", "holds no points"),
        ("3", "holds no points"),
        ("[[1, 2, 3]]", "two points"),
        ("[[1, 2, 3], [100, 2, 3]]", "outside the scan"),
    ],
)
def test_what_holds_no_stroke_is_refused(tmp_path, content, words):
    path = tmp_path / "stroke.json"
    path.write_text(content)
    with pytest.raises(ClickError, match=words) as raised:
        DrawingFile("scribble", path).read(SCAN)
    assert str(path) in str(raised.value)


def test_images_on_another_grid_and_files_that_are_missing_are_refused(tmp_path):
    path = tmp_path / "other.nii.gz"
    array = np.zeros((6, 10, 12), dtype=np.uint8)
    array[2, 2, 2] = 1
    write_mask(Mask(array, VolumeGrid.axial((6, 10, 12), (2.0, 1.0, 1.0))), path)
    with pytest.raises(ClickError, match="not lie on the grid"):
        DrawingFile("mask", path).read(SCAN)
    with pytest.raises(ClickError, match="cannot read"):
        DrawingFile("lasso", tmp_path / "none.json").read(SCAN)
    with pytest.raises(ClickError, match="a mask is an image"):
        DrawingFile("mask", tmp_path / "none.json").read(SCAN)

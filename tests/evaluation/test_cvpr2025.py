import json

import numpy as np
import pytest

from clickvol.errors import ClickError, ConfigError
from clickvol.evaluation.cvpr2025 import (
    ChallengeBox,
    ChallengeClicks,
    ChallengePrompts,
    answer_challenge,
    read_challenge_prompts,
    write_challenge_prompts,
)
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.challenge import read_challenge_scan
from clickvol.prompts.click import Click
from reference.evaluation_sets import Scripted

SHAPE = (6, 10, 12)
BOX = {
    "z_min": 1, "z_max": 3, "z_mid": 2,
    "z_mid_x_min": 4, "z_mid_x_max": 8, "z_mid_y_min": 2, "z_mid_y_max": 6,
}  # fmt: skip


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def scan_file(tmp_path):
    image = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:7, 4:9] = 1
    labels[5, 8:10, 0:2] = 3
    path = tmp_path / "CT_case.npz"
    np.savez_compressed(path, imgs=image, gts=labels, spacing=np.array([0.5, 1.5, 4.0]))
    return path


def test_prompts_go_to_a_file_and_come_back(scan_file):
    prompts = ChallengePrompts(
        boxes=(ChallengeBox(**BOX),),
        clicks=(ChallengeClicks(fg=((2, 4, 6),), bg=((0, 0, 0),)),),
        clicks_order=(("fg", "bg"),),
    )
    write_challenge_prompts(prompts, scan_file)
    assert json.loads((scan_file.parent / "CT_case.prompts.json").read_text())["boxes"] == [BOX]
    assert read_challenge_prompts(scan_file) == prompts
    box, clicks = prompts.of_class(1)
    assert (box.box.start_dhw, box.box.stop_dhw) == ((1, 2, 4), (4, 7, 9))
    assert clicks == [
        Click(VoxelPoint(2, 4, 6)),
        Click(VoxelPoint(2, 4, 6)),
        Click(VoxelPoint(0, 0, 0), foreground=False),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": [BOX | {"z_max": 0}]}, "boxes.0: a box ends before it begins"),
        ({"boxes": [BOX], "clicks": []}, None),
        ({"boxes": [BOX], "clicks": [{}, {}]}, "1 boxes but 2 entries"),
        ({"boxes": [{"z_min": 1}]}, "boxes.0.z_max: Field required"),
        ({"bboxes": []}, "bboxes: Extra inputs"),
    ],
)
def test_prompts_of_another_form_are_refused_in_one_line(scan_file, content, message):
    sidecar = scan_file.parent / "CT_case.prompts.json"
    sidecar.write_text(json.dumps(content))
    if message is None:
        assert read_challenge_prompts(scan_file).num_classes == 1
        return
    with pytest.raises(ConfigError, match=message) as caught:
        read_challenge_prompts(scan_file)
    assert "\n" not in str(caught.value)


def test_pickled_prompts_are_never_read(scan_file, tmp_path):
    proof = tmp_path / "executed"
    boxes = np.array([Evil(proof)], dtype=object)
    content = dict(np.load(scan_file))
    np.savez_compressed(scan_file, **content, boxes=boxes)
    with pytest.raises(ConfigError, match="pickled objects, which are never read"):
        read_challenge_prompts(scan_file)
    assert read_challenge_scan(scan_file).array.shape == SHAPE  # the plain arrays are
    assert not proof.exists()


def test_an_answer_has_a_number_per_class_cut_to_its_box(scan_file, tmp_path):
    def answer(scan, clicks):
        if not any(click.foreground for click in clicks):
            raise ClickError("no click inside")
        return np.ones(scan.volume.grid.shape_dhw, np.uint8)

    second = BOX | {"z_min": 4, "z_mid": 5, "z_max": 5, "z_mid_x_min": 10, "z_mid_x_max": 11}
    prompts = ChallengePrompts(boxes=(ChallengeBox(**BOX), ChallengeBox(**second)))
    write_challenge_prompts(prompts, scan_file)
    out = tmp_path / "answer.npz"
    assert answer_challenge(scan_file, out, Scripted(answer)) == []
    segs = np.load(out)["segs"]
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:4, 0:9, 2:11] = 1  # a quarter of 5 voxels, rounded up, on each side of the slice
    expected[4:6, 0:9, 9:12] = 2
    assert segs.dtype == np.uint8
    assert np.array_equal(segs, expected)


def test_a_class_without_an_answer_stays_empty_and_is_told(scan_file, tmp_path):
    def answer(scan, clicks):
        raise ClickError("there is no click inside the object")

    clicks = ChallengePrompts(clicks=(ChallengeClicks(bg=((0, 0, 0),)),))
    write_challenge_prompts(clicks, scan_file)
    failures = answer_challenge(scan_file, tmp_path / "answer.npz", Scripted(answer))
    assert failures == ["class 1: there is no click inside the object"]
    assert not np.load(tmp_path / "answer.npz")["segs"].any()

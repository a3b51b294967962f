import numpy as np
import pytest
from PIL import Image

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.prompts.click import Click
from clickvol.report.pictures import case_picture, choose_cases
from reference.click_scores import click_score

MASK, TRUTH, CLICK = (255, 170, 28), (92, 190, 255), (64, 226, 160)


def _chosen(scores, model="net", data="set"):
    found = choose_cases(scores, model=model, data=data)
    return {name: (s.case_id, s.seed, s.num_clicks) for name, s in found.items()}


def test_worst_median_and_best_are_by_dice():
    dice = {"a": 0.4, "b": 0.9, "c": 0.1, "d": 0.7, "e": 0.5}
    scores = [click_score(case_id=case, dice=value) for case, value in dice.items()]
    chosen = _chosen(scores)
    assert list(chosen) == ["worst", "median", "best"]
    assert [case for case, _, _ in chosen.values()] == ["c", "e", "b"]


def test_of_an_even_number_the_lower_median_is_taken_and_of_equal_ones_the_first_name():
    scores = [click_score(case_id=case, dice=0.5) for case in "dbca"]
    assert [case for case, _, _ in _chosen(scores).values()] == ["a", "b", "d"]


def test_only_the_last_click_of_the_first_user_with_the_main_placement_counts():
    scores = [
        click_score(case_id=case, seed=seed, num_clicks=n, placement=placement)
        for placement in ("random", "edge")
        for case in "abc"
        for seed in (3, 1)
        for n in (1, 5)
    ]
    scores += [click_score("other", "z", dice=0.0), click_score(case_id="y", data="second")]
    assert list(_chosen(scores).values()) == [("a", 1, 5), ("b", 1, 5), ("c", 1, 5)]
    assert choose_cases(scores, model="net", data="set")["worst"].placement == "random"


def test_no_case_is_shown_twice():
    assert list(_chosen([click_score(case_id="a")])) == ["median"]
    assert list(_chosen([click_score(case_id="a"), click_score(case_id="b")])) == ["worst", "best"]
    assert _chosen([], "net") == {}


def test_a_model_without_clicks_is_chosen_from_too():
    scores = [click_score(case_id=case, num_clicks=0, placement="none") for case in "ab"]
    assert list(_chosen(scores).values()) == [("a", 0, 0), ("b", 0, 0)]


def _case():
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3.0, 1.5, 1.5, 1.0
    shape = (30, 60, 60)
    noise = np.random.default_rng(0).integers(-100, 100, shape).astype(np.int16)
    truth, prediction = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    truth[10:20, 20:40, 20:40] = True
    prediction[12:22, 26:46, 24:44] = 1
    return Volume(noise, VolumeGrid(shape, affine), modality="CT"), truth, prediction


def _pixels(path, colour):
    picture = np.asarray(Image.open(path)).astype(int)[:-40]  # without the legend
    return int((np.abs(picture - colour).max(axis=2) < 30).sum())


def test_truth_mask_and_click_are_drawn(tmp_path):
    path = tmp_path / "case.png"
    case_picture(*_case(), path, "net, a, Dice 0.5", [Click(VoxelPoint(14, 30, 30))])
    assert np.asarray(Image.open(path)).shape[1] > 1000
    assert min(_pixels(path, colour) for colour in (MASK, TRUTH, CLICK)) > 50


def test_the_planes_go_through_the_truth_wherever_the_mask_and_the_click_are(tmp_path):
    volume, truth, _ = _case()
    elsewhere = np.zeros(truth.shape, np.uint8)
    elsewhere[27:29, 52:58, 52:58] = 1
    path = tmp_path / "case.png"
    case_picture(volume, truth, elsewhere, path, "missed", [Click(VoxelPoint(28, 55, 55))])
    assert _pixels(path, TRUTH) > 200
    assert _pixels(path, MASK) == _pixels(path, CLICK) == 0


def test_an_empty_mask_and_an_empty_truth_are_drawn(tmp_path):
    volume, truth, prediction = _case()
    nothing = np.zeros(truth.shape, np.uint8)
    case_picture(volume, truth, nothing, tmp_path / "missed.png", "missed")
    assert _pixels(tmp_path / "missed.png", MASK) == 0
    assert _pixels(tmp_path / "missed.png", TRUTH) > 200
    case_picture(volume, nothing, prediction, tmp_path / "invented.png", "invented")
    assert _pixels(tmp_path / "invented.png", MASK) > 200


def test_a_click_outside_the_scan_leaves_no_file(tmp_path):
    with pytest.raises(ClickError, match="outside"):
        case_picture(*_case(), tmp_path / "case.png", "", [Click(VoxelPoint(99, 0, 0))])
    assert list(tmp_path.iterdir()) == []

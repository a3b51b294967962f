import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.prompts.click import Click
from clickvol.report import figures
from clickvol.report.figures import case_picture, choose_cases, write_figures
from clickvol.report.summary import summarise
from reference.click_scores import click_score, click_table, plausible_scores

MASK, TRUTH, CLICK = (255, 170, 28), (92, 190, 255), (64, 226, 160)

FILES = ["click_curve.png", "box_plot.png", "volume_bland_altman.png"]


def _figures(scores, folder):
    table = click_table(*scores)
    folder.mkdir(exist_ok=True)
    paths = write_figures(table, summarise(table, resamples=100), folder)
    assert [path.name for path in paths.values()] == FILES
    return {path.name: np.asarray(Image.open(path).convert("RGB")) for path in paths.values()}


def _has(picture, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(picture.astype(int) - wanted).max(axis=2) < 8).any())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return _figures(plausible_scores(num_cases=4), tmp_path_factory.mktemp("figures"))


@pytest.mark.parametrize("name", FILES)
def test_a_figure_shows_something_and_no_page_is_blank(drawn, name):
    assert drawn[name].std() > 10
    assert min(drawn[name].shape[:2]) > 300


@pytest.mark.parametrize("name", ["click_curve.png", "box_plot.png"])
def test_each_model_has_its_colour(drawn, name):
    assert all(_has(drawn[name], colour) for colour in ("#0072B2", "#D55E00", "#009E73"))


def test_a_patient_with_two_scans_is_counted_once():
    scans = pd.DataFrame({"data": ["CT", "CT", "MR"], "case_id": ["a", "b", "a"], "group": ["a", "b", "a"]})
    assert figures._count_cases(scans) == "n = 3 cases, 2 patients"


def test_a_model_without_clicks_is_a_level_across_the_panel(tmp_path):
    scores = [click_score("net", num_clicks=n) for n in (1, 10)]
    scores.append(click_score("auto", num_clicks=0, placement="none", dice=0.8))
    picture = _figures(scores, tmp_path)["click_curve.png"]
    # The second model's colour, left of the legend.
    drawn = np.abs(picture.astype(int) - [0xD5, 0x5E, 0x00]).max(axis=2)[:, :600] < 8
    rows, columns = np.nonzero(drawn)
    assert np.ptp(columns) > 400
    assert np.ptp(rows) < 6


def test_only_the_main_placement_is_drawn(tmp_path):
    scores = [click_score(num_clicks=n, dice=0.05 * n) for n in (1, 10)]
    more = [click_score(num_clicks=n, dice=0.9, placement="edge") for n in (1, 3)]
    one, other = _figures(scores, tmp_path / "a"), _figures([*scores, *more], tmp_path / "b")
    for name in FILES:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    "scores",
    [
        [click_score(dice=0.0, mask_ml=0.0, hd95_mm=None, assd_mm=None, failure="no memory")],
        [click_score(num_clicks=0, placement="none")],
        [click_score(f"net {n}", data=f"set {n % 2}", num_clicks=1 + n % 2) for n in range(9)],
    ],
    ids=["one failure", "no clicks", "many models without common data"],
)
def test_few_and_many_records_are_drawn(scores, tmp_path):
    assert all(picture.std() > 5 for picture in _figures(scores, tmp_path).values())


def _chosen(scores, model="net", data="set"):
    chosen = choose_cases(click_table(*scores), model=model, data=data)
    return {name: (row.case_id, row.seed, row.num_clicks) for name, row in chosen.items()}


def test_worst_median_and_best_are_by_dice():
    dice = {"a": 0.4, "b": 0.9, "c": 0.1, "d": 0.7, "e": 0.5}
    scores = [click_score(case_id=case, dice=value) for case, value in dice.items()]
    chosen = _chosen(scores)
    assert list(chosen) == ["worst", "median", "best"]
    assert [case for case, _, _ in chosen.values()] == ["c", "e", "b"]


def test_of_an_even_number_the_lower_median_counts_and_of_equal_ones_the_first_name():
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
    assert choose_cases(click_table(*scores), model="net", data="set")["worst"].placement == "random"


def test_no_case_is_shown_twice():
    assert list(_chosen([click_score(case_id="a")])) == ["median"]
    assert list(_chosen([click_score(case_id="a"), click_score(case_id="b")])) == ["worst", "best"]
    assert _chosen([click_score()], "nobody") == {}


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

import sys

import numpy as np
import pytest
from PIL import Image

from clickvol.errors import ConfigError
from clickvol.report.figures import write_figures
from clickvol.report.summary import summarise
from reference.click_scores import click_score, plausible_scores

pytest.importorskip("matplotlib")

FILES = ["click_curve.png", "box_plot.png", "volume_bland_altman.png"]


def _figures(scores, folder):
    scores = list(scores)
    folder.mkdir(exist_ok=True)
    paths = write_figures(scores, summarise(scores, resamples=100), folder)
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


def test_without_matplotlib_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    scores = [click_score()]
    with pytest.raises(ConfigError, match=r"matplotlib; pip install 'clickvol\[evaluate\]'"):
        write_figures(scores, summarise(scores, resamples=10), tmp_path)
    assert list(tmp_path.iterdir()) == []

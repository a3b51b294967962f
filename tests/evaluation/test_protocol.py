import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.protocol import protocol_names, read_protocol


def test_the_presets_are_those_of_the_papers_and_our_own():
    assert protocol_names() == ["clickvol", "cvpr2025", "promise2d", "promise3d", "sam3d_adapter", "tags"]


@pytest.mark.parametrize(
    ("name", "first", "further", "clicks", "tolerance", "limit"),
    [
        ("clickvol", "random", "error", (1, 3, 5, 10), 2.0, None),
        ("promise3d", "random", "random_foreground", (1,), 5.0, None),
        ("sam3d_adapter", "random", "random_foreground", (1, 3, 10), 5.0, None),
        ("tags", "random", "random_foreground", (1, 3, 10), 5.0, None),
        ("cvpr2025", "box", "error", (1, 2, 3, 4, 5, 6), 2.0, 90.0),
    ],
)
def test_each_preset_has_its_published_numbers(name, first, further, clicks, tolerance, limit):
    protocol = read_protocol(name)
    assert protocol.name == name
    assert (protocol.first_click, protocol.next_clicks) == (first, further)
    assert protocol.num_clicks == clicks
    assert protocol.nsd_tolerance_mm == tolerance
    assert protocol.nsd_tolerances_mm == (1.0, 2.0, 5.0)
    assert protocol.time_limit_seconds == limit


def test_numbers_can_be_replaced_and_the_rest_stays():
    protocol = read_protocol("promise3d", num_clicks=(1, 10), seeds=5, nsd_tolerance_mm=1.0)
    assert (protocol.num_clicks, protocol.seeds, protocol.nsd_tolerance_mm) == ((1, 10), 5, 1.0)
    assert protocol.next_clicks == "random_foreground"


def test_other_tolerances_make_other_settings_and_the_usual_ones_are_not_said():
    usual = read_protocol()
    other = read_protocol(nsd_tolerance_mm=3.0, nsd_tolerances_mm=(0.5, 3.0))
    # What evaluations of versions without the choice wrote down, so that they go on.
    assert "nsd_tolerances_mm" not in usual.settings()
    assert usual.settings()["num_clicks"] == (1, 3, 5, 10)
    assert other.settings() == usual.settings() | {
        "nsd_tolerance_mm": 3.0,
        "nsd_tolerances_mm": (0.5, 3.0),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "nobody"}, "there is no protocol 'nobody'; choose one of clickvol, cvpr2025"),
        ({"num_clicks": (3, 1)}, "give rising ones"),
        ({"num_clicks": (1, 1)}, "give rising ones"),
        ({"num_clicks": (0, 1)}, "give rising ones"),
        ({"num_clicks": ()}, "give rising ones"),
        ({"seeds": 0}, "give at least 1"),
        ({"nsd_tolerance_mm": 3.0}, "choose one of 1, 2, 5"),
        ({"nsd_tolerances_mm": (1.0, 3.0)}, "2 mm is not recorded; choose one of 1, 3"),
        ({"nsd_tolerances_mm": ()}, "NSD are none; give rising ones above 0 mm"),
        ({"nsd_tolerances_mm": (2.0, 1.0)}, "NSD are 2, 1; give rising ones"),
        ({"nsd_tolerances_mm": (0.0, 2.0)}, "give rising ones above 0 mm"),
        ({"nsd_tolerances_mm": (2.0, float("inf"))}, "give rising ones above 0 mm"),
        ({"nsd_tolerances_mm": (2.0, float("nan"))}, "give rising ones above 0 mm"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_protocol(**words)
    assert "\n" not in str(caught.value)

from pathlib import Path

import pytest

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.prompts.click_text import (
    parse_box,
    parse_click,
    parse_clicks,
    parse_drawing,
    parse_image_prompts,
    parse_line,
)
from clickvol.prompts.drawing_files import DrawingFile
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts
from clickvol.prompts.spatial import Box, Line


@pytest.mark.parametrize(
    ("text", "space", "position", "foreground"),
    [
        ("120,88,41", "ijk", VoxelPoint(41, 88, 120), True),
        ("120,88,41:-", "ijk", VoxelPoint(41, 88, 120), False),
        ("120,88,41:+", "ijk", VoxelPoint(41, 88, 120), True),
        ("-12.5,30,4", "ras", WorldPointRAS(-12.5, 30, 4), True),
        ("-12.5,30,4:-", "lps", WorldPointRAS(12.5, -30, 4), False),
        (" 1, 2 ,3 ", "ijk", VoxelPoint(3, 2, 1), True),
        ("1e1,-2,-3", "ras", WorldPointRAS(10, -2, -3), True),
    ],
)
def test_a_click_is_parsed(text, space, position, foreground):
    click = parse_click(text, space=space)
    assert (click.position, click.foreground) == (position, foreground)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1,2,3:*", "1 2 3", "1,,3", ":-"])
def test_a_malformed_click_is_refused_with_an_example(text):
    with pytest.raises(ClickError, match="120,88,41"):
        parse_click(text, space="ijk")


@pytest.mark.parametrize("text", ["nan,1,2", "1,inf,2", "1,2,-inf:-"])
def test_a_click_that_is_not_finite_is_refused(text):
    with pytest.raises(ClickError, match="give 3 finite numbers"):
        parse_click(text, space="ras")


def test_lines_and_boxes_are_parsed():
    first, second = VoxelPoint(3, 2, 1), VoxelPoint(6, 5, 4)
    assert parse_line("1,2,3:4,5,6", space="ijk") == Line(first, second)
    assert parse_box("1,2,3:4,5,6", space="ijk") == Box(first, second)
    assert parse_box("1,2,3:4,5,6:-", space="ijk") == Box(first, second, foreground=False)
    assert parse_line("1,2,3:4,5,6", space="lps").first == WorldPointRAS(-1, -2, 3)


@pytest.mark.parametrize("text", ["1,2,3", "1,2:3,4", "1,2,3:4,5,6:7,8,9", "", "a:b", "1,2,nan:1,2,3"])
def test_lines_that_cannot_be_read_are_refused(text):
    with pytest.raises(ClickError, match="cannot read the line"):
        parse_line(text, space="ijk")


def test_drawings_are_parsed():
    assert parse_drawing("lasso", "a.json:-", space="ras") == DrawingFile(
        "lasso", Path("a.json"), foreground=False, space="ras"
    )
    with pytest.raises(ClickError, match="a mask to correct is the object"):
        parse_drawing("mask", "a.nii:-", space="ijk")


def test_no_clicks_at_all_are_none():
    assert parse_clicks([], space="ijk") == ()


def test_clicks_and_a_box_on_an_image_are_parsed():
    prompts = parse_image_prompts(["120,88", "3.5,-1:-"], "100,70,140,110")
    clicks = (ImageClick(120, 88, foreground=True), ImageClick(3.5, -1, foreground=False))
    assert prompts == ImagePrompts(clicks, (100, 70, 140, 110))
    assert parse_image_prompts([], None) == ImagePrompts()


@pytest.mark.parametrize(
    ("clicks", "box", "message"),
    [
        (["1,2", "1"], None, "cannot read the click '1'; give 2 finite numbers"),
        (["1,nan"], None, "give 2 finite numbers"),
        (["1,2"], "1,2,3", "cannot read the box '1,2,3'; give 4 finite numbers"),
    ],
)
def test_a_malformed_point_or_box_is_refused(clicks, box, message):
    with pytest.raises(ClickError, match=message):
        parse_image_prompts(clicks, box)

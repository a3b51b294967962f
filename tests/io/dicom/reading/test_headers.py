import pytest

from clickvol.io.dicom.reading.headers import (
    ImageFile,
    find_images,
    finite_numbers,
    read_tags,
    shown_text,
    whole_number,
)
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import read_volume


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), ("4", 4), (4.0, 4), ("4.5", None), ("S3", None), ([3], 3), ([3, 3], None), (None, None),
     ("1e999", None), ("nan", None), (b"3", 3), ("", None), (object(), None)],
)  # fmt: skip
def test_whole_numbers(value, expected):
    assert whole_number(value) == expected


def test_numbers_are_so_many_and_finite():
    assert finite_numbers(["1", 2.5], 2).tolist() == [1, 2.5]
    assert finite_numbers([1, "inf"], 2) is None
    assert finite_numbers([1, 2, 3], 2) is None


def replace_value(path, tag, vr, value):
    """Write a value of the same length that breaks its type."""
    content = path.read_bytes()
    place = content.index(tag + vr) + 8
    assert len(value) == int.from_bytes(content[place - 2 : place], "little")
    path.write_bytes(content[:place] + value + content[place + len(value) :])


def test_a_series_number_that_is_none_is_missing(write_series):
    folder = write_series(SeriesNumber=11)
    for path in folder.iterdir():
        replace_value(path, b"\x20\x00\x11\x00", b"IS", b"S3")
    assert read_volume(folder).grid.shape_dhw == (4, 5, 6)
    (series,) = list_series(folder)
    assert series.number is None
    assert "without number" in str(series)


@pytest.mark.parametrize("number", ["4.0", " 7 ", "+3"])
def test_numbers_of_odd_spelling_are_numbers(number):
    file = ImageFile("a", {"SeriesNumber": number})
    assert file.series_number == int(float(number))


def test_only_what_is_asked_for_is_read(write_series):
    folder = write_series(ImageComments="long" * 100)
    path = find_images(folder).files[0].path
    assert set(read_tags(path, ("Rows", "ImageComments"), last_group=0x0020)) == {"ImageComments"}
    assert read_tags(path, ("Rows", "PatientName")) == {"Rows": 5}


def test_what_a_file_says_is_shown_as_one_short_line():
    assert shown_text(None) == ""
    assert shown_text(["CT", 1.5]) == "['CT', 1.5]"
    assert shown_text(" a\n\x00b\x07c ") == "a b c"
    assert len(shown_text("x" * 10_000)) == 100

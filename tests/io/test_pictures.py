import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clickvol.errors import OutputError, UnreadableVolumeError
from clickvol.io.pictures import (
    check_picture_output,
    is_picture,
    read_mask_values,
    read_picture,
    write_mask_picture,
)

GREY = np.array([[0, 10, 20], [30, 40, 255]], np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def png_header(path, width, height):
    """A PNG file that claims a size and has no pixels."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def test_grey_and_colour_come_back_as_they_are(tmp_path):
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for name, array in (("g.png", GREY), ("c.png", colour)):
        result = read_picture(save(tmp_path / name, array))
        assert result.dtype == np.uint8
        assert np.array_equal(result, array)


def test_deep_grey_keeps_its_values(tmp_path):
    deep = np.array([[0, 300, 65535], [1, 2, 40000]], np.uint16)
    result = read_picture(save(tmp_path / "deep.png", deep))
    assert result.dtype == np.uint16
    assert np.array_equal(result, deep)


def test_a_jpeg_is_read_and_turned_as_viewers_show_it(tmp_path):
    blocks = np.zeros((16, 32), np.uint8)
    blocks[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the top left goes to the top right
    result = read_picture(save(tmp_path / "t.jpg", blocks, exif=exif.tobytes()))
    expected = np.rot90(blocks, -1)
    assert result.shape == (32, 16)
    assert np.abs(result.astype(int) - expected).max() < 8


def test_palette_one_bit_cmyk_and_transparency(tmp_path):
    bits = Image.fromarray(GREY > 15)
    assert bits.mode == "1"
    bits.save(tmp_path / "bits.png")
    assert np.array_equal(read_picture(tmp_path / "bits.png"), np.where(GREY > 15, 255, 0))

    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([9, 8, 7, 200, 100, 50])
    palette.save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").tolist() == [[[9, 8, 7], [200, 100, 50]]]

    Image.new("CMYK", (4, 2), (0, 0, 0, 0)).save(tmp_path / "c.jpg")
    assert read_picture(tmp_path / "c.jpg").shape == (2, 4, 3)

    alpha = np.array([[[50, 60, 70, 255], [50, 60, 70, 0]]], np.uint8)
    result = read_picture(save(tmp_path / "a.png", alpha))
    assert result.tolist() == [[[50, 60, 70], [0, 0, 0]]]
    result = read_picture(save(tmp_path / "la.png", alpha[..., 2:]))
    assert result.tolist() == [[70, 0]]


def test_several_frames_are_refused(tmp_path):
    first, second = (Image.fromarray(GREY + n) for n in (0, 1))
    first.save(tmp_path / "two.png", save_all=True, append_images=[second])
    with pytest.raises(UnreadableVolumeError, match="has 2 frames"):
        read_picture(tmp_path / "two.png")


@pytest.mark.parametrize("side", [8193, 12000, 100_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    with pytest.raises(UnreadableVolumeError, match="more than 67 million pixels"):
        read_picture(png_header(tmp_path / "bomb.png", side, side))


def test_what_cannot_be_read_is_one_line(tmp_path):
    whole = save(tmp_path / "w.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    gif = tmp_path / "gif.png"
    save(gif, GREY, format="GIF")
    for path, words in (
        (cut, "damaged"),
        (text, "not a PNG, JPEG or TIFF"),
        (gif, "not a PNG, JPEG or TIFF"),
        (png_header(tmp_path / "none.png", 4, 4), "damaged"),
        (tmp_path / "absent.png", "does not exist"),
        (tmp_path, "is not a file"),
    ):
        with pytest.raises(UnreadableVolumeError, match=words) as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)


def test_a_mask_is_written_as_0_and_255(tmp_path):
    mask = GREY > 15
    write_mask_picture(mask, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), np.where(mask, 255, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def test_outputs_that_cannot_be_are_told_before(tmp_path):
    given = save(tmp_path / "in.png", GREY)
    (tmp_path / "link.png").symlink_to(given)
    (tmp_path / "folder.png").mkdir()
    for path, words in (
        (tmp_path / "m.jpg", "does not end in .png"),
        (tmp_path / "link.png", "or an input"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "none" / "m.png", "does not exist"),
        (tmp_path / ("x" * 400 + ".png"), "cannot be the name|does not exist|cannot write"),
    ):
        with pytest.raises(OutputError, match=words):
            check_picture_output(path, [given])
    assert check_picture_output(tmp_path / "m.PNG", [given]) == tmp_path / "m.PNG"


def test_names_tell_pictures_from_scans():
    assert all(map(is_picture, ("a.png", "b.JPG", "c.jpeg")))
    assert not any(map(is_picture, ("a.nii.gz", "b", "png")))


def test_the_values_of_a_mask_are_grey_or_the_numbers_of_a_palette(tmp_path):
    values = np.array([[0, 1, 2], [2, 0, 7]], np.uint8)
    grey, colours = Image.fromarray(values), np.repeat(values[..., None], 3, axis=2)
    numbered = Image.fromarray(values, "P")
    numbered.putpalette([5, 90, 200] * 256)
    for name, image in (("grey", grey), ("palette", numbered), ("colours", Image.fromarray(colours))):
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_mask_values(tmp_path / f"{name}.png"), values)
    colours[0, 0] = 200, 0, 0
    Image.fromarray(colours).save(tmp_path / "red.png")
    with pytest.raises(UnreadableVolumeError, match="is a coloured picture, but a mask is grey"):
        read_mask_values(tmp_path / "red.png")

import struct

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.slices import Mosaic
from clickvol.io.formats import read_volume

TILES = (np.arange(6 * 4 * 5).reshape(6, 4, 5) + 100).astype(np.uint16)


def csa(**fields):
    """Return a CSA header of the second kind, as Siemens writes it."""
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        content += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 0, len(values), 77)
        for value in values:
            text = str(value).encode() + b"\0"
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


def picture(tiles):
    """Return nine tiles in a square, row by row, empty ones at the end."""
    whole = np.zeros((9, *tiles.shape[1:]), tiles.dtype)
    whole[: len(tiles)] = tiles
    return whole.reshape(3, 3, 4, 5).transpose(0, 2, 1, 3).reshape(12, 15)


@pytest.fixture
def write_mosaic(make_dataset, tmp_path):
    def write(content, name="m.dcm", **tags):
        dataset = make_dataset(picture(TILES), 0, Modality="MR", RescaleIntercept=0, SpacingBetweenSlices=3.3,
                               ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], **tags)  # fmt: skip
        if content is not None:
            dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", content)
        (tmp_path / "mr").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "mr" / name, enforce_file_format=True)
        return tmp_path / "mr"

    return write


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mosaic_is_its_tiles(write_mosaic, sign):
    folder = write_mosaic(csa(NumberOfImagesInMosaic=[6], SliceNormalVector=[0, 0, sign]))
    volume = read_volume(folder)
    assert volume.grid.shape_dhw == (6, 4, 5)
    np.testing.assert_array_equal(volume.array, TILES[::sign])
    np.testing.assert_allclose(volume.grid.spacing_dhw_mm, [3.3, 0.8, 0.5])
    # The file places a picture of 12 x 15 pixels; its tile of 4 x 5 lies in the middle.
    first = [100 - 5 * 0.5, 50 - 4 * 0.8, 20 if sign == 1 else 20 - 5 * 3.3]
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm[:3, 3], first)


def test_a_time_series_of_mosaics_holds_volumes(write_mosaic):
    header = csa(NumberOfImagesInMosaic=[6], SliceNormalVector=[0, 0, 1])
    for n in range(3):
        folder = write_mosaic(header, f"{n}.dcm", AcquisitionNumber=n + 1, InstanceNumber=n + 1)
    with pytest.raises(DicomSeriesError, match=r"holds 3 volumes.*2: acquisition 3 \(6 slices\)"):
        read_volume(folder)
    np.testing.assert_array_equal(read_volume(folder, volume_index=2).array, TILES)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"SV10\4\3\2\1\xff\xff\xff\xff", csa(NumberOfImagesInMosaic=[6]),
     csa(SliceNormalVector=[0, 0, 1]),
     csa(NumberOfImagesInMosaic=[30], SliceNormalVector=[0, 0, 1]),
     csa(NumberOfImagesInMosaic=[6], SliceNormalVector=[0, 0, 9])],
)  # fmt: skip
def test_a_mosaic_that_cannot_be_split_is_refused(write_mosaic, content):
    with pytest.raises(
        DicomSeriesError, match=r"m\.dcm is a mosaic: the slices of a volume tiled in one picture"
    ):
        read_volume(write_mosaic(content))


def test_tiles_fill_the_picture_row_by_row():
    mosaic = Mosaic(6, 3, (4, 5), (0, 0, 1))
    np.testing.assert_array_equal(mosaic.tiles(picture(TILES)), TILES)

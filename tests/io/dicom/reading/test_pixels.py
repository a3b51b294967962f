import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import find_images
from clickvol.io.dicom.reading.pixels import codestream_shape, read_stored_pixels
from clickvol.io.dicom.reading.series import read_dicom

STORED_AS = [(np.uint8, 8), (np.int16, 16), (np.uint16, 16), (np.int16, 12), (np.uint16, 12)]


def noise(dtype, bits, frames=1):
    low = -(2 ** (bits - 1)) if np.dtype(dtype).kind == "i" else 0
    return np.random.default_rng(bits).integers(low, low + 2**bits, (frames, 32, 40)).astype(dtype)


def compress(dataset, pixels, syntax, bits):
    """Compress with pydicom's encoders, and JPEG 2000 with OpenJPEG's own."""
    if syntax != JPEG2000Lossless:
        dataset.compress(syntax)
        return
    encode = pytest.importorskip("openjpeg.utils").encode_array
    frames = [encode(plane, bits_stored=bits, photometric_interpretation=2) for plane in pixels]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless


def test_a_file_without_preamble_is_read(tmp_path, make_dataset, stored_pixels):
    dataset = make_dataset(stored_pixels[0], 0)
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(tmp_path / "old", implicit_vr=True, little_endian=True)
    assert (tmp_path / "old").read_bytes()[:2] == b"\x08\x00"
    (file,) = find_images(tmp_path).files
    np.testing.assert_array_equal(read_stored_pixels(file.path)[0], stored_pixels[0])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_stored_values_come_without_rescale(tmp_path, make_dataset, dtype):
    pixels = (np.arange(30).reshape(5, 6) * 8).astype(dtype)
    make_dataset(pixels, 0).save_as(tmp_path / "a", enforce_file_format=True)
    stored = read_stored_pixels(tmp_path / "a")
    assert (stored.shape, stored.dtype) == ((1, 5, 6), dtype)
    np.testing.assert_array_equal(stored[0], pixels)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize(("dtype", "bits"), STORED_AS)
@pytest.mark.parametrize("frames", [1, 3])
def test_lossless_compression_gives_the_stored_values(tmp_path, make_dataset, syntax, dtype, bits, frames):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    pixels = noise(dtype, bits, frames)
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    if frames > 1:
        tags["NumberOfFrames"] = frames
    dataset = make_dataset(pixels if frames > 1 else pixels[0], 0, **tags)
    compress(dataset, pixels, syntax, bits)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert pydicom.dcmread(tmp_path / "a").file_meta.TransferSyntaxUID == syntax
    stored = read_stored_pixels(tmp_path / "a")
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, pixels)


def test_a_compressed_series_has_the_rescaled_values(tmp_path, make_dataset):
    pixels = noise(np.uint16, 12, 3)
    for index, syntax in enumerate([JPEG2000Lossless, RLELossless, JPEG2000Lossless]):
        dataset = make_dataset(pixels[index], index, BitsStored=12, HighBit=11)
        compress(dataset, pixels[index : index + 1], syntax, 12)
        dataset.save_as(tmp_path / str(9 - index), enforce_file_format=True)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, pixels.astype(int) - 1024)


def test_a_compressed_enhanced_file_has_its_frames_in_order(tmp_path, enhanced_ct, stored_pixels):
    pytest.importorskip("jpeg_ls")
    enhanced_ct.compress(JPEGLSLossless)
    enhanced_ct.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path).array, stored_pixels[::-1] * 2.0 - 1000)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_compressed_pixels_come_without_rescale(tmp_path, compressor, capfd):
    pixels = np.random.default_rng(0).integers(-900, 2000, (1, 32, 40)).astype(np.int16)
    image = sitk.GetImageFromArray(pixels)[:, :, 0]
    image = sitk.JoinSeries([image])
    image.SetMetaData("0008|0060", "CT")
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.2")
    image.SetMetaData("0020|000e", str(generate_uid()))
    image.SetMetaData("0028|1052", "-24")
    image.SetMetaData("0028|1053", "2")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(compressor)
    writer.UseCompressionOn()
    writer.Execute(image)
    (file,) = find_images(tmp_path).files
    slope = float(file.header.get("RescaleSlope", 1))
    intercept = float(file.header.get("RescaleIntercept", 0))
    stored = read_stored_pixels(file.path)
    # What ITK wrote are stored values that its own rescale tags turn into the image.
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.dcm")))
    np.testing.assert_array_equal(stored * slope + intercept, expected)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.is_compressed
    assert (slope, intercept) != (1, 0)
    assert capfd.readouterr() == ("", "")


def test_truncated_pixels_are_refused(tmp_path, make_dataset, stored_pixels):
    make_dataset(stored_pixels[0], 0).save_as(tmp_path / "a", enforce_file_format=True)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-9])
    with pytest.raises(DicomSeriesError, match="pixels of a are missing, truncated") as caught:
        read_stored_pixels(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_missing_decoder_is_named_with_the_command(tmp_path, make_dataset, monkeypatch):
    pixels = noise(np.uint16, 16)
    dataset = make_dataset(pixels[0], 0)
    compress(dataset, pixels, JPEG2000Lossless, 16)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    monkeypatch.setattr(Decoder, "is_available", property(lambda _: False))
    with pytest.raises(DicomSeriesError) as caught:
        read_stored_pixels(tmp_path / "a")
    message = str(caught.value)
    assert message.startswith("the pixels of a are compressed as High-Throughput JPEG 2000")
    assert message.endswith('run: pip install "clickvol[dicom]"')
    assert "\n" not in message
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2, a film
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match="compressed as MPEG2"):
        read_stored_pixels(tmp_path / "a")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_frame_of_another_size_is_not_decompressed(tmp_path, make_dataset, syntax, monkeypatch):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    pixels = noise(np.uint16, 16)
    dataset = make_dataset(pixels[0], 0)
    compress(dataset, pixels, syntax, 16)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert codestream_shape(frame) == (32, 40)
    dataset.Rows = 16
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    monkeypatch.setattr(sitk, "ReadImage", None)  # whoever calls it fails otherwise
    with pytest.raises(DicomSeriesError, match="pixels of a are missing") as caught:
        read_stored_pixels(tmp_path / "a")
    assert "(32, 40) rows and columns, not (16, 40)" in str(caught.value.__cause__)


def test_the_size_that_a_frame_says():
    # SOI, a segment, a table (C4), a fill byte, then the frame header: 12 bit, 7 rows, 9 columns.
    head = bytes.fromhex("ffd8 ffe0 0004 0102 ffc4 0003 ff ff ffc1 000b 0c 0007 0009")
    assert codestream_shape(head) == (7, 9)
    assert codestream_shape(head[:-1]) is None
    sizes = struct.pack(">4I", 109, 57, 100, 50)  # right, bottom, left, top
    codestream = bytes.fromhex("ff4f ff51 0029 0000") + sizes
    assert codestream_shape(codestream) == (7, 9)
    assert codestream_shape(b"\0\0\0\x0cjP  \r\n\x87\n" + codestream) == (7, 9)
    assert codestream_shape(b"run length" + codestream) is None


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("frames", [1, 3])
def test_monochrome1_is_about_display_alone(tmp_path, make_dataset, syntax, frames):
    pixels = noise(np.uint16, 12, frames)
    tags = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    if frames > 1:
        tags["NumberOfFrames"] = frames
    dataset = make_dataset(pixels if frames > 1 else pixels[0], 0, **tags)
    if syntax is not None:
        compress(dataset, pixels, syntax, 12)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored_pixels(tmp_path / "a"), pixels)


@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_samples_that_are_not_at_the_bottom_of_their_word(tmp_path, make_dataset, high_bit, dtype, syntax):
    pixels = noise(dtype, 12)[0]
    unused = high_bit - 11
    # Bits above and below belong to something else, such as an overlay.
    words = ((pixels.astype(np.int64) & 0xFFF) << unused) | ((1 << unused) - 1) | (0xFFFF << (high_bit + 1))
    dataset = make_dataset((words & 0xFFFF).astype(np.uint16), 0, BitsStored=12, HighBit=high_bit)
    dataset.PixelRepresentation = int(np.dtype(dtype).kind == "i")
    if syntax is not None:
        dataset.compress(syntax)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored_pixels(tmp_path / "a")[0], pixels)


def test_compressed_samples_have_no_place_in_a_word(tmp_path, make_dataset):
    pytest.importorskip("jpeg_ls")
    pixels = noise(np.uint16, 12)[0]
    dataset = make_dataset(pixels, 0, BitsStored=12, HighBit=11)
    dataset.compress(JPEGLSLossless)
    dataset.HighBit = 15
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored_pixels(tmp_path / "a")[0], pixels)


def test_bits_that_cannot_be_are_refused_in_a_line(tmp_path, make_dataset, stored_pixels):
    dataset = make_dataset(stored_pixels[0], 0)
    dataset.BitsStored, dataset.HighBit = 12, 16
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match="a: the header says that bits 5 to 16 of words of 16 bits"):
        read_stored_pixels(tmp_path / "a")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("left_of_delimiter", [0, 4, 7])
@pytest.mark.parametrize("frames", [1, 3])
def test_pixels_that_nothing_closes_are_whole(tmp_path, make_dataset, syntax, left_of_delimiter, frames):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    pixels = noise(np.int16, 16, frames)
    tags = {"NumberOfFrames": frames} if frames > 1 else {}
    dataset = make_dataset(pixels if frames > 1 else pixels[0], 0, **tags)
    dataset.compress(syntax)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    whole = (tmp_path / "a").read_bytes()
    assert whole.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    (tmp_path / "a").write_bytes(whole[: len(whole) - 8 + left_of_delimiter])
    np.testing.assert_array_equal(read_stored_pixels(tmp_path / "a"), pixels)


@pytest.mark.parametrize("missing", [9, 50])
def test_a_last_fragment_that_is_cut_off_is_refused(tmp_path, make_dataset, stored_pixels, missing):
    dataset = make_dataset(stored_pixels[0], 0)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[: -8 - missing])
    with pytest.raises(DicomSeriesError, match="missing, truncated"):
        read_stored_pixels(tmp_path / "a")


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("high_bit", [11, 13, None])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32])
@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize("end", ["pixels", "padding", "cut off"])
def test_plain_pixels_are_read_from_the_end_of_the_file(
    tmp_path, make_dataset, implicit, high_bit, dtype, frames, end
):
    bits = 8 * np.dtype(dtype).itemsize
    tags = {"NumberOfFrames": frames, "HighBit": bits - 1, "BitsStored": bits}
    if high_bit is not None and bits >= 16:
        tags |= {"HighBit": high_bit, "BitsStored": 12}
    words = np.random.default_rng(bits).integers(0, 255, (frames or 1, 5, 7 * bits // 8), np.uint8).view(dtype)
    dataset = make_dataset(words if frames else words[0], 0, **tags)
    if end == "padding":
        dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 10)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    if end == "cut off":
        (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-2])
    (file,) = find_images(tmp_path).files
    if end == "cut off":
        with pytest.raises(DicomSeriesError, match="missing, truncated"):
            read_stored_pixels(file.path, file.header)
        return
    stored = read_stored_pixels(file.path, file.header)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, read_stored_pixels(file.path))

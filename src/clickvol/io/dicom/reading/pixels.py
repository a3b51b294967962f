"""The pixels of a DICOM file, as stored, whatever they are compressed with.

Decoders, all of permissive licences: pydicom for uncompressed and run-length pixels; GDCM, which is inside
SimpleITK, for JPEG, JPEG lossless, JPEG-LS and JPEG 2000; and for what neither knows, such as High-Throughput
JPEG 2000, whatever decoder pydicom finds installed.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.files.native_stderr import silent_native_stderr
from clickvol.io.dicom.attributes import OF_PIXELS
from clickvol.io.dicom.reading.headers import shown_text, whole_number

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

# DICOM PS3.6, table A-1: JPEG of processes 1, 2 and 4, and 14 (lossless, with and without selection value 1),
# JPEG-LS lossless and near-lossless, JPEG 2000 lossless and not.
_GDCM_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91))

# The first two markers of a codestream, and the first box of a file around one.
_JPEG2000_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "


_ITEM = b"\xfe\xff\x00\xe0"
_CLOSING = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"

_EXPLICIT = "1.2.840.10008.1.2.1"
# How the element with the pixels begins, by the transfer syntax of little endian bytes.
_PLAIN_STARTS = {_EXPLICIT: b"\xe0\x7f\x10\x00O", "1.2.840.10008.1.2": b"\xe0\x7f\x10\x00"}

_PIXELS = 0x7FE00010
_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class _NoDecoderError(Exception):
    """Nothing that is installed decompresses this transfer syntax."""


def read_stored_pixels(path: Path, header: Mapping[str, Any] | None = None) -> NDArray[np.generic]:
    """Return the stored values of a file, (frames, H, W), before any rescaling; integers for a scan.

    With the header that was read before, plain pixels are not parsed again. DicomSeriesError when they are
    truncated, are not of the size that the header says, or cannot be decompressed; where a decoder is missing,
    with the command that installs it.
    """
    import pydicom

    plain = None if header is None else _plain_pixels(path, header)
    if plain is not None:
        return plain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True, specific_tags=[*OF_PIXELS, *_PIXEL_DATA])
            if not any(keyword in dataset for keyword in _PIXEL_DATA):
                dataset = _open_ended(path)
            with silent_native_stderr() if dataset_is_compressed(dataset) else contextlib.nullcontext():
                pixels = decoded_pixels(dataset)
        except _NoDecoderError as error:
            raise DicomSeriesError(
                f"the pixels of {path.name} are compressed as {error}, and nothing that decompresses it is "
                'installed; run: pip install "clickvol[dicom]"'
            ) from error
        except DicomSeriesError as error:
            raise DicomSeriesError(f"{path.name}: {error}") from error
        except BaseException as error:
            # pydicom and GDCM raise whatever their parsers met, and decoders in Rust what is no Exception.
            if not is_of_decoder(error):
                raise
            raise DicomSeriesError(
                f"the pixels of {path.name} are missing, truncated or compressed in an unknown "
                "way; copy or export the series again"
            ) from error
    return pixels if pixels.ndim == 3 else pixels[np.newaxis]


def _plain_pixels(path: Path, header: Mapping[str, Any]) -> NDArray[np.generic] | None:
    """Return the pixels of a file that ends with them, uncompressed; None for any other file."""
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    numbers = [whole_number(header.get(name)) for name in names]
    frames = whole_number(header.get("NumberOfFrames", 1))
    syntax = header.get("TransferSyntaxUID")
    if syntax not in _PLAIN_STARTS or frames is None or None in numbers:
        return None
    rows, columns, allocated, stored, high_bit, is_signed = (n or 0 for n in numbers)
    num_bytes = frames * rows * columns * (allocated // 8)
    if allocated not in (8, 16, 32) or not 0 < stored <= high_bit + 1 <= allocated or num_bytes <= 0:
        return None
    start_bytes, padded_bytes = 8 + 4 * (syntax == _EXPLICIT), num_bytes + num_bytes % 2
    try:
        with path.open("rb") as file:
            file.seek(-start_bytes - padded_bytes, os.SEEK_END)
            start = file.read(start_bytes)
            words = np.fromfile(file, f"<{'iu'[not is_signed]}{allocated // 8}", frames * rows * columns)
    except OSError:
        return None
    if not (start.startswith(_PLAIN_STARTS[syntax]) and int.from_bytes(start[-4:], "little") == padded_bytes):
        return None
    return _samples(words.reshape(frames, rows, columns), allocated, stored, high_bit)


def _samples(words: NDArray[Any], allocated: int, stored: int, high_bit: int) -> NDArray[np.generic]:
    """Return the samples that lie below a bit of the words, which are changed."""
    if stored < allocated:
        # Up to the top of the word, so that the way down again brings the sign.
        np.left_shift(words, allocated - 1 - high_bit, out=words)
        np.right_shift(words, allocated - stored, out=words)
    return words


def is_of_decoder(error: BaseException) -> bool:
    """Tell whether a decoder or parser raised an error, and not a user who ended the program."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def dataset_is_compressed(dataset: "Dataset") -> bool:
    """Tell whether the pixels of a data set are compressed; a way that pydicom does not know counts as one."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None or syntax.is_private:
        return False
    return not syntax.is_transfer_syntax or syntax.is_compressed


def _open_ended(path: Path) -> "Dataset":
    """Read a file whose compressed pixels nothing closes at its end, which pydicom passes over."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_partial

    with path.open("rb") as file:
        tags = [tag for tag in map(tag_for_keyword, (*OF_PIXELS, *_PIXEL_DATA)) if tag is not None]
        dataset = read_partial(file, lambda tag, *_: tag == _PIXELS, force=True, specific_tags=tags)
        rest = file.read()
    # Tag, VR, two reserved bytes, and a length that is left open.
    if rest[:4] != b"\xe0\x7f\x10\x00" or rest[8:12] != b"\xff" * 4:
        raise ValueError("there are no pixels")
    place = 12
    while rest[place : place + 4] == _ITEM:
        place += 8 + int.from_bytes(rest[place + 4 : place + 8], "little")
    # At most a part of the closing tag may follow.
    if place > len(rest) or not (_CLOSING.startswith(rest[place:]) or rest.startswith(_CLOSING, place)):
        raise ValueError("the last fragment is cut off")
    dataset.add_new(_PIXELS, "OB", rest[12:place])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def decoded_pixels(dataset: "Dataset") -> NDArray[np.generic]:
    """Return the stored values of a data set, which is changed, (H, W) or (frames, H, W)."""
    import pydicom
    from pydicom.pixels import get_decoder

    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        # A file without a preamble is in the default transfer syntax of the standard.
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax = pydicom.uid.ImplicitVRLittleEndian
    if syntax.is_encapsulated:
        _check_codestreams(dataset)
    if syntax in _GDCM_SYNTAXES:
        return _decompress(dataset)
    try:
        is_known = get_decoder(syntax).is_available
    except NotImplementedError:
        is_known = False
    if syntax.is_encapsulated and not is_known:
        raise _NoDecoderError(shown_text(syntax.name))
    if any(keyword in dataset for keyword in _PIXEL_DATA[1:]):
        floats: NDArray[np.generic] = dataset.pixel_array
        return floats
    return _right_justified(dataset)


def _right_justified(dataset: "Dataset") -> NDArray[np.generic]:
    """Return the samples of a data set without what lies above and below their bits in a word."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    unused = int(dataset.get("HighBit") or stored - 1) + 1 - stored
    if not 0 < stored <= allocated or unused > allocated - stored:
        raise DicomSeriesError(
            f"the header says that bits {unused} to {unused + stored - 1} of words of {allocated} bits hold "
            "the samples, which cannot be; export the series again"
        )
    if unused <= 0:
        plain: NDArray[np.generic] = dataset.pixel_array
        return plain
    # pydicom takes samples for right-justified whatever HighBit says; of whole words it hands out every bit.
    dataset.BitsStored, dataset.HighBit = allocated, allocated - 1
    words: NDArray[np.generic] = dataset.pixel_array
    return _samples(words, allocated, stored, stored + unused - 1)


def _check_codestreams(dataset: "Dataset") -> None:
    """Refuse frames of another size than the header says (ValueError), before a decoder makes room for them."""
    from pydicom.encaps import generate_frames

    expected = (int(dataset.Rows), int(dataset.Columns))
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=num_frames):
        compressed_shape = codestream_shape(frame)
        if compressed_shape is not None and compressed_shape != expected:
            raise ValueError(f"a frame is compressed as {compressed_shape} rows and columns, not {expected}")


def codestream_shape(frame: bytes) -> tuple[int, int] | None:
    """Return the (rows, columns) that a compressed frame says of itself; None for anything else.

    JPEG (ITU-T T.81, B.2.2), JPEG-LS (T.87, C.2.2) or JPEG 2000 (T.800, A.5.1) from the start of its
    codestream, or with the boxes of a JP2 file before it.
    """
    jpeg2000 = frame.find(_JPEG2000_START) if frame.startswith(_JP2_START) else 0
    if jpeg2000 >= 0 and frame.startswith(_JPEG2000_START, jpeg2000) and len(frame) >= jpeg2000 + 24:
        # SOC, SIZ, Lsiz and Rsiz take 8 bytes; then come Xsiz, Ysiz, XOsiz and YOsiz.
        right, bottom, left, top = np.frombuffer(frame, ">u4", 4, jpeg2000 + 8).tolist()
        return bottom - top, right - left
    if not frame.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        # C4, C8 and CC are tables; all others of the row start a frame, as does F7 of JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = np.frombuffer(frame, ">u2", 2, place + 5).tolist()
            return rows, columns
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _decompress(dataset: "Dataset") -> NDArray[np.generic]:
    """Decompress through GDCM a copy that says nothing but how its pixels are stored.

    GDCM applies rescale tags itself, but not for every kind of object, and turns dark into bright for
    MONOCHROME1, which is about display alone (PS3.3, C.7.6.3.1.2). Of a plain picture it hands out the stored
    values.
    """
    import SimpleITK as sitk

    dataset.SOPClassUID = _SECONDARY_CAPTURE
    dataset.file_meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
    dataset.PhotometricInterpretation = "MONOCHROME2"
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    unused = int(dataset.get("HighBit") or stored - 1) + 1 - stored
    is_signed = bool(dataset.get("PixelRepresentation"))
    if unused > 0 and not is_signed:
        # Whether the samples were moved down before they were compressed is seen from what comes out.
        dataset.BitsStored = allocated
    dataset.HighBit = int(dataset.get("BitsStored") or allocated) - 1
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "slice.dcm"
        dataset.save_as(plain)
        with silent_native_stderr():
            pixels: NDArray[np.generic] = sitk.GetArrayFromImage(
                sitk.ReadImage(str(plain), imageIO="GDCMImageIO")
            )
    if unused > 0 and not is_signed and int(pixels.max()) >= 2**stored:
        pixels = np.right_shift(pixels, unused)
    return pixels

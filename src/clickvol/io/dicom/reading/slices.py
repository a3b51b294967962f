"""DICOM files to slices: which files are images, and what each says about itself.

A classic file is one slice; a frame of an enhanced multi-frame file is one as well.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError, ScanTooLargeError
from clickvol.files.limits import ReadLimits

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Objects that may carry rows and columns, but are no scan.
_NOT_SCANS = frozenset({"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "DOC"})

_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
)

_MAGIC_OFFSET_BYTES = 128
# Files of the time before the preamble start with the first tag, little endian group 0008.
_BARE_START = b"\x08\x00"

START_BYTES = _MAGIC_OFFSET_BYTES + 4
"""How much of a file `looks_like_dicom` needs to see."""

_DEFLATED = "1.2.840.10008.1.2.1.99"

# Deflate cannot do better than about 1:1032.
_MAX_DEFLATE_RATIO = 1032


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A DICOM file with pixels: its path and the tags needed to sort it, without the pixels."""

    path: Path
    header: "Dataset"

    @property
    def series_uid(self) -> str:
        """Return the SeriesInstanceUID; empty where there is none."""
        return str(self.header.get("SeriesInstanceUID", ""))

    @property
    def num_frames(self) -> int:
        """Number of frames; 1 for a classic file."""
        return int(self.header.get("NumberOfFrames") or 1)


@dataclass(frozen=True, slots=True)
class DicomSlice:
    """One plane of pixels and where it lies.

    Attributes:
        path, frame: the file, and which of its frames, from 0.
        shape_hw: rows and columns.
        position_lps_mm: (3,) centre of the first pixel.
        orientation_lps: (6,) unit vectors along a row, then along a column.
        spacing_hw_mm: distance between rows, then between columns.
        slope, intercept: stored value to Hounsfield units or whatever the modality measures.
        thickness_mm: distance of slices as the file says, or None where it does not.
    """

    path: Path
    frame: int
    shape_hw: tuple[int, int]
    position_lps_mm: NDArray[np.float64]
    orientation_lps: NDArray[np.float64]
    spacing_hw_mm: tuple[float, float]
    slope: float
    intercept: float
    thickness_mm: float | None

    @property
    def name(self) -> str:
        """Return a short name for messages."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name


def looks_like_dicom(start: bytes) -> bool:
    """Tell from the first `START_BYTES` of a file, or all it has, whether it may be DICOM."""
    return start[_MAGIC_OFFSET_BYTES:] == b"DICM" or start.startswith(_BARE_START)


def find_images(
    folder: Path, *, source: str | None = None, limits: ReadLimits | None = None
) -> list[ImageFile]:
    """Return the DICOM files with pixels in a folder, or below it where it holds none itself.

    Files that are not DICOM, directories of media (DICOMDIR), and objects that are no scan (SEG,
    RTSTRUCT, SR, PR and the like) are passed over.

    Args:
        folder: where to look.
        source: what messages call the folder; None for its path.
        limits: what a deflated file may unpack to; None for any size.

    Raises:
        DicomSeriesError: for a damaged DICOM file.
        ScanTooLargeError: for a deflated file that could unpack to more than the limit.
    """
    shown = source or str(folder)
    direct = [f for path in sorted(folder.iterdir()) for f in _image_file(path, shown, limits)]
    if direct:
        return direct
    return [f for path in sorted(folder.rglob("*")) for f in _image_file(path, shown, limits)]


def _image_file(path: Path, source: str, limits: ReadLimits | None) -> Iterator[ImageFile]:
    """Yield the file if it is a DICOM image.

    Raises:
        DicomSeriesError: for a damaged DICOM file; passing over it could shorten the scan.
        ScanTooLargeError: for a deflated file that could unpack to more than the limit.
    """
    import pydicom

    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        if not looks_like_dicom(start):
            return
        has_preamble = start[_MAGIC_OFFSET_BYTES:] == b"DICM"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if has_preamble and limits is not None:
                _check_deflated(path, source, limits)
            header = pydicom.dcmread(
                path, stop_before_pixels=True, force=not has_preamble, specific_tags=list(_TAGS)
            )
            # Values are parsed when first asked for; here a strange one warns nobody.
            for _ in header.iterall():
                pass
    except ScanTooLargeError:
        raise
    except Exception as error:
        # pydicom raises whatever its parser met: KeyError, struct.error, ValueError, ...
        raise DicomSeriesError(
            f"{source}: {path.name} is a damaged or unreadable DICOM file; copy it again, or take it out"
        ) from error
    if header.get("Rows") and header.get("Columns") and header.get("Modality") not in _NOT_SCANS:
        yield ImageFile(path, header)


def _check_deflated(path: Path, source: str, limits: ReadLimits) -> None:
    """Refuse a deflated file that could unpack to too much: pydicom inflates it all at once."""
    from pydicom.filereader import read_file_meta_info

    if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        limits.check_bytes(path.stat().st_size * _MAX_DEFLATE_RATIO, f"{source}: {path.name}")


def slices_of(file: ImageFile) -> list[DicomSlice]:
    """Return the slices of one file.

    Raises:
        DicomSeriesError: a colour image, a tag missing that places the pixels, a multi-frame object without
            functional groups, or one that is split into several files.
    """
    header = file.header
    samples = int(header.get("SamplesPerPixel") or 1)
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomSeriesError(
            f"{file.path.name} is a colour image ({photometric}, {samples} samples per pixel); a "
            "single grey channel is expected, so choose another series"
        )
    _refuse_concatenation(file)
    try:
        if file.num_frames == 1 and "PerFrameFunctionalGroupsSequence" not in header:
            return [_slice(file, 0, [header])]
        return _frames(file)
    except (TypeError, ValueError) as error:
        raise DicomSeriesError(
            f"{file.path.name} has a damaged header: {error}; export the series again".replace("\n", " ")
        ) from error


def _refuse_concatenation(file: ImageFile) -> None:
    """Refuse a part of a multi-frame object: whether all are there is not always told (PS3.3, C.7.6.16)."""
    header = file.header
    if not header.get("ConcatenationUID"):
        return
    part, total = header.get("InConcatenationNumber"), header.get("InConcatenationTotalNumber")
    if total == 1:
        return
    raise DicomSeriesError(
        f"{file.path.name} is part {part or '?'} of {total or '?'} of a concatenation, a multi-frame object "
        "split into several files, which is not supported; export it as one enhanced file or as single slices"
    )


def _frames(file: ImageFile) -> list[DicomSlice]:
    header = file.header
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        name = getattr(header.get("SOPClassUID"), "name", "unknown")
        raise DicomSeriesError(
            f"{file.path.name} is a multi-frame object ({name}) that does not say where each "
            "frame lies; classic CT or MR slices, or enhanced CT or MR, are expected"
        )
    if len(per_frame) != file.num_frames:
        raise DicomSeriesError(
            f"{file.path.name} says that it has {file.num_frames} frames, but places {len(per_frame)}; export "
            "it again"
        )
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    frames = []
    for number, group in enumerate(per_frame):
        sources = [header]
        for functional_group in (shared[0], group):
            # Each macro is a sequence of one item; its tags are the ones of a classic file.
            sources += [
                element.value[0] for element in functional_group or () if element.VR == "SQ" and element.value
            ]
        frames.append(_slice(file, number, sources))
    return frames


def _slice(file: ImageFile, frame: int, sources: list["Dataset"]) -> DicomSlice:
    """Collect the tags of a slice; a later source counts before an earlier one."""

    def find(tag: str) -> Any:  # noqa: ANN401 - a tag has the type of its value
        values = [s.get(tag) for s in sources]
        return next((v for v in reversed(values) if v is not None and v != ""), None)

    def numbers(tag: str, count: int) -> NDArray[np.float64]:
        value = find(tag)
        if value is None or len(value) != count or not np.isfinite([float(v) for v in value]).all():
            raise DicomSeriesError(
                f"{file.path.name} has no usable {tag}, so its place in the patient is unknown; "
                "export the series as axial slices with positions, or choose another series"
            )
        return np.array([float(v) for v in value])

    slope, intercept = find("RescaleSlope"), find("RescaleIntercept")
    thickness = find("SpacingBetweenSlices") or find("SliceThickness")
    spacing = numbers("PixelSpacing", 2)
    return DicomSlice(
        path=file.path,
        frame=frame,
        shape_hw=(int(file.header.Rows), int(file.header.Columns)),
        position_lps_mm=numbers("ImagePositionPatient", 3),
        orientation_lps=numbers("ImageOrientationPatient", 6),
        spacing_hw_mm=(float(spacing[0]), float(spacing[1])),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        thickness_mm=abs(float(thickness)) if thickness else None,
    )

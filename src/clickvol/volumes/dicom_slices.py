"""DICOM files to slices: which files are images, and what each says about itself.

A classic file is one slice; a frame of an enhanced multi-frame file is one as well.
"""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.volumes.native_stderr import silent_native_stderr

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
)

_MAGIC_OFFSET_BYTES = 128
# Files of the time before the preamble start with the first tag, little endian group 0008.
_BARE_START = b"\x08\x00"

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


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


def find_images(folder: Path) -> list[ImageFile]:
    """Return the DICOM files with pixels in a folder, or below it where it holds none itself.

    Files that are not DICOM, directories of media (DICOMDIR), and objects that are no scan (SEG,
    RTSTRUCT, SR, PR and the like) are passed over.

    Raises:
        DicomSeriesError: for a damaged DICOM file.
    """
    direct = [file for path in sorted(folder.iterdir()) for file in _image_file(path)]
    if direct:
        return direct
    return [file for path in sorted(folder.rglob("*")) for file in _image_file(path)]


def _image_file(path: Path) -> Iterator[ImageFile]:
    """Yield the file if it is a DICOM image.

    Raises:
        DicomSeriesError: for a damaged DICOM file; passing over it could shorten the scan.
    """
    import pydicom

    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_OFFSET_BYTES + 4)
        has_preamble = start[_MAGIC_OFFSET_BYTES:] == b"DICM"
        if not has_preamble and not start.startswith(_BARE_START):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(
                path, stop_before_pixels=True, force=not has_preamble, specific_tags=list(_TAGS)
            )
            # Values are parsed when first asked for; here a strange one warns nobody.
            for _ in header.iterall():
                pass
    except Exception as error:
        # pydicom raises whatever its parser met: KeyError, struct.error, ValueError, ...
        msg = f"{path} is a damaged or unreadable DICOM file; copy it again, or take it out"
        raise DicomSeriesError(msg) from error
    if header.get("Rows") and header.get("Columns") and header.get("Modality") not in _NOT_SCANS:
        yield ImageFile(path, header)


def slices_of(file: ImageFile) -> list[DicomSlice]:
    """Return the slices of one file.

    Raises:
        DicomSeriesError: a colour image, a tag missing that places the pixels, or a multi-frame
            object without functional groups.
    """
    header = file.header
    samples = int(header.get("SamplesPerPixel") or 1)
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        msg = (
            f"{file.path.name} is a colour image ({photometric}, {samples} samples per pixel); a "
            "single grey channel is expected, so choose another series"
        )
        raise DicomSeriesError(msg)
    try:
        if file.num_frames == 1 and "PerFrameFunctionalGroupsSequence" not in header:
            return [_slice(file, 0, [header])]
        return _frames(file)
    except (TypeError, ValueError) as error:
        msg = f"{file.path.name} has a damaged header: {error}; export the series again"
        raise DicomSeriesError(msg.replace("\n", " ")) from error


def _frames(file: ImageFile) -> list[DicomSlice]:
    header = file.header
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        name = getattr(header.get("SOPClassUID"), "name", "unknown")
        msg = (
            f"{file.path.name} is a multi-frame object ({name}) that does not say where each "
            "frame lies; classic CT or MR slices, or enhanced CT or MR, are expected"
        )
        raise DicomSeriesError(msg)
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    frames = []
    for number, group in enumerate(per_frame):
        sources = [header]
        for functional_group in (shared[0], group):
            # Each macro is a sequence of one item; its tags are the ones of a classic file.
            sources += [
                element.value[0]
                for element in functional_group or ()
                if element.VR == "SQ" and element.value
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
            msg = (
                f"{file.path.name} has no usable {tag}, so its place in the patient is unknown; "
                "export the series as axial slices with positions, or choose another series"
            )
            raise DicomSeriesError(msg)
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


def read_stored_pixels(path: Path) -> NDArray[np.generic]:
    """Return the stored values of a file, (frames, H, W) integers, before any rescaling.

    pydicom reads uncompressed and run-length pixels; GDCM (inside SimpleITK) decompresses all
    others.

    Raises:
        DicomSeriesError: when the pixels are truncated or cannot be decompressed.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
            if syntax is None:
                # A file without a preamble is in the default transfer syntax of the standard.
                dataset.file_meta = pydicom.dataset.FileMetaDataset()
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            elif syntax.is_encapsulated and syntax != pydicom.uid.RLELossless:
                return _decompress(dataset)
            pixels: NDArray[np.generic] = dataset.pixel_array
        except Exception as error:
            # pydicom and GDCM raise whatever their parsers met; to the user it is one thing.
            msg = (
                f"the pixels of {path.name} are missing, truncated or compressed in an unknown "
                "way; copy or export the series again"
            )
            raise DicomSeriesError(msg) from error
    return pixels if pixels.ndim == 3 else pixels[np.newaxis]


def _decompress(dataset: "Dataset") -> NDArray[np.generic]:
    """Decompress through GDCM a copy that has no rescale tags.

    GDCM applies the rescale tags itself, but not for every kind of object; without them, and as a
    plain picture, it hands out the stored values.
    """
    import SimpleITK as sitk

    for tag in ("RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence"):
        if tag in dataset:
            delattr(dataset, tag)
    dataset.SOPClassUID = _SECONDARY_CAPTURE
    dataset.file_meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "slice.dcm"
        dataset.save_as(plain)
        with silent_native_stderr():
            pixels: NDArray[np.generic] = sitk.GetArrayFromImage(
                sitk.ReadImage(str(plain), imageIO="GDCMImageIO")
            )
    return pixels

"""DICOM files to slices: what each says about itself.

A classic file is one slice; so is a frame of an enhanced multi-frame file, and a tile of a mosaic.

Where frames lie is told by functional groups (DICOM PS3.3, C.7.6.16). Every attribute has its own macro, a
sequence of one item, and is taken from there alone: private sequences repeat public attributes with other
meanings; those of Philips scanners place the corner of a pixel, not its centre.

Which tiles a Siemens mosaic has and which way they go is told by Siemens' own header (CSA) alone, read by
nibabel. Tiles fill the picture row by row; the position in the file is that of a slice as large as the picture.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.attributes import MACROS, MARKS
from clickvol.io.dicom.reading.headers import (
    ImageFile,
    finite_numbers,
    read_tags,
    shown_text,
    valid_value,
    whole_number,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_CSA_CREATOR, _CSA_GROUP, _CSA_IMAGE = "SIEMENS CSA HEADER", 0x0029, 0x10


@dataclass(frozen=True, slots=True)
class Mosaic:
    """How a picture holds slices: `per_side` tiles in a row and rows of them, and the step to the next."""

    num_tiles: int
    per_side: int
    shape_hw: tuple[int, int]
    step_lps_mm: tuple[float, float, float]

    @property
    def picture_shape_hw(self) -> tuple[int, int]:
        """Rows and columns of the whole picture."""
        return self.shape_hw[0] * self.per_side, self.shape_hw[1] * self.per_side

    def position_lps_mm(
        self,
        tile: int,
        corner_lps_mm: NDArray[np.float64],
        orientation_lps: NDArray[np.float64],
        spacing_hw_mm: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the centre of the first pixel of a tile (3,) from what the file says of the whole picture."""
        margin_h, margin_w = ((self.per_side - 1) * size / 2 for size in self.shape_hw)
        row, column = orientation_lps[:3], orientation_lps[3:]
        first = corner_lps_mm + row * spacing_hw_mm[1] * margin_w + column * spacing_hw_mm[0] * margin_h
        return np.asarray(first + tile * np.array(self.step_lps_mm))

    def tiles(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the slices (tiles, H, W) of a picture (rows, columns)."""
        height, width = self.shape_hw
        grid = picture.reshape(self.per_side, height, self.per_side, width)
        return grid.transpose(0, 2, 1, 3).reshape(-1, height, width)[: self.num_tiles]


def read_mosaic(file: ImageFile) -> Mosaic | None:
    """Return how a file holds its slices, None for one; DicomSeriesError where a mosaic does not say."""
    image_type = file.header.get("ImageType") or ()
    if "MOSAIC" not in (
        str(part).upper() for part in ([image_type] if isinstance(image_type, str) else image_type)
    ):
        return None
    num_tiles, normal = _csa(file)
    rows, columns = whole_number(file.header.get("Rows")) or 0, whole_number(file.header.get("Columns")) or 0
    distances = (finite_numbers(file.header.get(k), 1) for k in ("SpacingBetweenSlices", "SliceThickness"))
    distance_mm = next((float(v[0]) for v in distances if v is not None and v[0] > 0), None)
    per_side = math.ceil(math.sqrt(num_tiles)) if num_tiles else 0
    if not per_side or rows % per_side or columns % per_side or normal is None or distance_mm is None:
        raise DicomSeriesError(
            f"{file.path.name} is a mosaic: the slices of a volume tiled in one picture, and its Siemens "
            "header (CSA) does not say how many they are and where they lie; export the series as single or "
            "enhanced slices, or convert it with dcm2niix where the header is whole"
        )
    x, y, z = (normal * distance_mm).tolist()
    return Mosaic(num_tiles, per_side, (rows // per_side, columns // per_side), (x, y, z))


def _csa(file: ImageFile) -> tuple[int, NDArray[np.float64] | None]:
    """Return the number of tiles, 0 where it is unknown, and the unit vector (3,) from slice to slice."""
    import pydicom
    from nibabel.nicom import csareader

    try:
        dataset = pydicom.dcmread(file.path, stop_before_pixels=True, force=True)
        tags = csareader.read(bytes(dataset.private_block(_CSA_GROUP, _CSA_CREATOR)[_CSA_IMAGE].value))
        number = int(csareader.get_scalar(tags, "NumberOfImagesInMosaic") or 0)
        normal = finite_numbers(csareader.get_vector(tags, "SliceNormalVector", 3), 3)
    except Exception:
        # Neither reader promises what it raises for a header that somebody cut down.
        return 0, None
    is_unit = normal is not None and abs(float(np.linalg.norm(normal)) - 1) < 1e-2
    return (max(number, 0), normal) if is_unit else (0, None)


_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def frame_attributes(file: ImageFile) -> list[Mapping[str, Any]] | None:
    """Return the attributes that hold for each frame, by keyword: its own, else the shared, else the file's.

    None for a file of one frame without functional groups; DicomSeriesError when the file has several frames
    and does not say where each lies, or is damaged.
    """
    name = file.path.name
    try:
        groups = read_tags(file.path, (_SHARED, _PER_FRAME))
        per_frame, shared = _items(groups.get(_PER_FRAME)), _items(groups.get(_SHARED))
        if not per_frame and file.num_frames == 1:
            return None
        if per_frame and len(per_frame) == file.num_frames:
            common = {**file.header, **dict(_attributes(shared[0] if shared else None))}
            return [{**common, **dict(_attributes(item))} for item in per_frame]
    except Exception as error:
        # pydicom raises whatever its parser met: KeyError, struct.error, ValueError, ...
        raise DicomSeriesError(
            f"{name} has damaged functional groups, which place its frames; export the series again"
        ) from error
    if per_frame:
        raise DicomSeriesError(
            f"{name} says that it has {file.num_frames} frames, but places {len(per_frame)}; export it again"
        )
    kind = shown_text(getattr(file.header.get("SOPClassUID"), "name", None)) or "unknown"
    raise DicomSeriesError(
        f"{name} is a multi-frame object ({kind}) that does not say where each frame lies; classic CT or MR "
        "slices, or enhanced CT or MR, are expected"
    )


def _items(value: Any) -> Sequence["Dataset"]:  # noqa: ANN401 - an attribute may be anything
    from pydicom.sequence import Sequence as DicomSequence

    return value if isinstance(value, DicomSequence) else ()


def _attributes(group: "Dataset | None") -> Iterator[tuple[str, Any]]:
    """Yield what the macros of a functional group say."""
    for sequence, keywords in MACROS.items() if group is not None else ():
        for item in _items(valid_value(group, sequence))[:1]:
            for keyword in keywords:
                value = valid_value(item, keyword)
                if value is not None:
                    yield keyword, value


@dataclass(frozen=True, slots=True)
class DicomSlice:
    """One plane of pixels and where it lies.

    Attributes:
        file, frame: the file, and which of its frames or tiles, from 0.
        position_lps_mm: (3,) centre of the first pixel.
        slope, intercept: stored value to Hounsfield units or whatever the modality measures.
        thickness_mm: distance of slices as the file says, or None where it does not.
        marks: what may tell it from another slice at the same place, by name ("b-value").
    """

    file: ImageFile
    frame: int
    shape_hw: tuple[int, int]
    position_lps_mm: NDArray[np.float64]
    orientation_lps: NDArray[np.float64]
    spacing_hw_mm: tuple[float, float]
    slope: float
    intercept: float
    thickness_mm: float | None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    is_frame: bool = False
    mosaic: Mosaic | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    instance_number: int | None = None

    @property
    def path(self) -> Path:
        """Return the path of the file."""
        return self.file.path

    @property
    def name(self) -> str:
        """Return a short name for messages."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name


def slices_of(file: ImageFile) -> list[DicomSlice]:
    """Return the slices of one file.

    DicomSeriesError for a colour image, a tag missing that places the pixels, a multi-frame object without
    functional groups, one that is split into several files, or a mosaic that cannot be split.
    """
    header = file.header
    samples = whole_number(header.get("SamplesPerPixel", 1))
    photometric = file.text("PhotometricInterpretation") or "MONOCHROME2"
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomSeriesError(
            f"{file.path.name} is a colour image ({photometric}, {samples} samples per pixel); a "
            "single grey channel is expected, so choose another series"
        )
    _refuse_concatenation(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "NumberOfFrames" in header:
            frames = frame_attributes(file)
            if frames is not None:
                return [_slice(file, number, frame) for number, frame in enumerate(frames)]
        mosaic = read_mosaic(file)
    if mosaic is None:
        return [_slice(file, None, header)]
    return [_slice(file, tile, header, mosaic) for tile in range(mosaic.num_tiles)]


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


def _slice(
    file: ImageFile, frame: int | None, attributes: Mapping[str, Any], mosaic: Mosaic | None = None
) -> DicomSlice:
    """Return a slice of the attributes that hold for it; a frame of None for that of a classic file."""

    def numbers(keyword: str, count: int) -> NDArray[np.float64]:
        values = finite_numbers(attributes.get(keyword), count)
        if values is None:
            raise DicomSeriesError(
                f"{file.path.name} has no usable {keyword}, so its place in the patient is unknown; "
                "export the series as axial slices with positions, or choose another series"
            )
        return values

    def number(keyword: str, default: float) -> float:
        value = attributes.get(keyword)
        if value is None:
            return default
        parsed = finite_numbers(value, 1)
        if parsed is None:
            raise DicomSeriesError(
                f"{file.path.name} has {keyword} {str(value)[:40]!r}, which is no finite number; repair the "
                "series"
            )
        return float(parsed[0])

    rows, columns = (whole_number(file.header.get(keyword)) for keyword in ("Rows", "Columns"))
    if not rows or not columns or min(rows, columns) < 0:
        raise DicomSeriesError(f"{file.path.name} has no usable Rows and Columns; export the series again")
    thicknesses = (
        finite_numbers(attributes.get(keyword), 1) for keyword in ("SpacingBetweenSlices", "SliceThickness")
    )
    spacing = numbers("PixelSpacing", 2)
    position, orientation = numbers("ImagePositionPatient", 3), numbers("ImageOrientationPatient", 6)
    if mosaic is not None:
        position = mosaic.position_lps_mm(frame or 0, position, orientation, spacing)
    return DicomSlice(
        file=file,
        frame=frame or 0,
        shape_hw=(rows, columns) if mosaic is None else mosaic.shape_hw,
        position_lps_mm=position,
        orientation_lps=orientation,
        spacing_hw_mm=(float(spacing[0]), float(spacing[1])),
        slope=number("RescaleSlope", 1.0),
        intercept=number("RescaleIntercept", 0.0),
        thickness_mm=next((abs(float(v[0])) for v in thicknesses if v is not None and v[0]), None),
        sop_class_uid=file.text("SOPClassUID"),
        sop_instance_uid=file.text("SOPInstanceUID"),
        is_frame=frame is not None and mosaic is None,
        mosaic=mosaic,
        marks={
            name: shown_text(attributes[keyword]) for keyword, name in MARKS.items() if keyword in attributes
        },
        instance_number=whole_number(file.header.get("InstanceNumber")),
    )

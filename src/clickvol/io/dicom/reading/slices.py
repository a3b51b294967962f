"""DICOM files to slices: what each says about itself.

A classic file is one slice; so is a frame of an enhanced multi-frame file, and a tile of a mosaic.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.functional_groups import frame_attributes
from clickvol.io.dicom.reading.headers import ImageFile, finite_numbers, shown_text, whole_number
from clickvol.io.dicom.reading.mosaic import Mosaic, read_mosaic

# What may tell the volumes of a series apart, each with the name that people know. In this order a volume is
# named.
_MARKS = {
    "TemporalPositionIdentifier": "time point",
    "TemporalPositionIndex": "time point",
    "TemporalPositionTimeOffset": "time in s",
    "NominalPercentageOfCardiacPhase": "cardiac phase in %",
    "TriggerTime": "trigger time in ms",
    "NominalCardiacTriggerDelayTime": "trigger time in ms",
    "DiffusionBValue": "b-value",
    "EchoTime": "echo time in ms",
    "EffectiveEchoTime": "echo time in ms",
    "InversionTime": "inversion time in ms",
    "FlipAngle": "flip angle",
    "KVP": "kVp",
    "ConvolutionKernel": "kernel",
    "ImageType": "image type",
    "FrameType": "image type",
    "ComplexImageComponent": "image type",
    "StackID": "stack",
    "AcquisitionNumber": "acquisition",
    "AcquisitionDateTime": "acquisition time",
    "FrameAcquisitionDateTime": "acquisition time",
    "AcquisitionTime": "acquisition time",
    "ContentTime": "content time",
}


@dataclass(frozen=True, slots=True)
class DicomSlice:
    """One plane of pixels and where it lies.

    Attributes:
        file, frame: the file, and which of its frames or tiles, from 0.
        shape_hw: rows and columns.
        position_lps_mm: (3,) centre of the first pixel.
        orientation_lps: (6,) unit vectors along a row, then along a column.
        spacing_hw_mm: distance between rows, then between columns.
        slope, intercept: stored value to Hounsfield units or whatever the modality measures.
        thickness_mm: distance of slices as the file says, or None where it does not.
        sop_class_uid, sop_instance_uid: of the file; "" where it does not say.
        is_frame: whether the file has frames.
        mosaic: how the file holds its tiles; None where it holds none.
        marks: what may tell it from another slice at the same place, by name ("b-value").
        instance_number: of the file; None where it does not say.
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
            name: shown_text(attributes[keyword]) for keyword, name in _MARKS.items() if keyword in attributes
        },
        instance_number=whole_number(file.header.get("InstanceNumber")),
    )

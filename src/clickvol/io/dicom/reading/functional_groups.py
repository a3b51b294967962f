"""Where the frames of an enhanced multi-frame object lie: its functional groups (DICOM PS3.3, C.7.6.16).

Every attribute has its own macro, a sequence of one item, and is taken from there alone. Private sequences
repeat public attributes with other meanings: those of Philips scanners place the corner of a pixel, not its
    centre.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import ImageFile, read_tags, shown_text, valid_value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

_MACROS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("TemporalPositionIndex", "StackID", "FrameAcquisitionDateTime"),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "CardiacSynchronizationSequence": (
        "NominalPercentageOfCardiacPhase",
        "NominalCardiacTriggerDelayTime",
    ),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRImageFrameTypeSequence": ("FrameType", "ComplexImageComponent"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "CTXRayDetailsSequence": ("KVP",),
}


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
    for sequence, keywords in _MACROS.items() if group is not None else ():
        for item in _items(valid_value(group, sequence))[:1]:
            for keyword in keywords:
                value = valid_value(item, keyword)
                if value is not None:
                    yield keyword, value

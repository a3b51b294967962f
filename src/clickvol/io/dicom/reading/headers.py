"""The headers of DICOM images, read once: the attributes that sort files into series and place their pixels.

Whatever a file holds in an attribute, reading it does not fail: a value that breaks its type counts as missing,
and whoever cannot do without it says so. Files of a series are checked for being one scan, and all of it.
"""

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError, ScanTooLargeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.attributes import OF_IMAGES
from clickvol.io.dicom.reading.search import START_BYTES, dicom_candidates

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


# Objects that may carry rows and columns, but are no scan.
_NOT_SCANS = frozenset({"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "DOC"})
_MR_SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"

# Computed radiography, CT, MR, PET, secondary capture, and the enhanced kinds of them. One without rows is cut
# off.
_IMAGE_STORAGES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{kind}"
    for kind in ("1", "2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "7", "20", "128", "128.1", "130")
)

# All of them lie below; what comes after are private groups, which may be long, functional groups and pixels.
_LAST_GROUP = 0x0028

_DEFLATED = "1.2.840.10008.1.2.1.99"

# Longer than any value that the standard allows where text is asked for here.
_MAX_TEXT = 100

# Deflate cannot do better than about 1:1032.
_MAX_DEFLATE_RATIO = 1032


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A DICOM file with pixels; its header has the attributes outside of all sequences that are valid."""

    path: Path
    header: Mapping[str, Any] = field(repr=False)

    def text(self, keyword: str) -> str:
        """Return an attribute as one short line; "" where it is missing."""
        return shown_text(self.header.get(keyword))

    @property
    def series_uid(self) -> str:
        """Return the SeriesInstanceUID; empty where there is none."""
        return self.text("SeriesInstanceUID")

    @property
    def series_number(self) -> int | None:
        """Return the SeriesNumber, None where there is none or it is no number."""
        return whole_number(self.header.get("SeriesNumber"))

    @property
    def is_multi_frame(self) -> bool:
        """Whether its frames have places of their own."""
        return "NumberOfFrames" in self.header

    @property
    def num_frames(self) -> int:
        """Number of frames; 1 for a classic file."""
        return whole_number(self.header.get("NumberOfFrames")) or 1


@dataclass(frozen=True, slots=True)
class ImageSearch:
    """The images below a folder, and a sentence for each thing there that was not opened."""

    files: tuple[ImageFile, ...]
    notes: tuple[str, ...]

    def by_series(self, name: str | None = None) -> list[list[ImageFile]]:
        """Return the files of each series; with a name those of its UID, or else of its number."""
        groups: dict[str, list[ImageFile]] = {}
        for file in self.files:
            groups.setdefault(file.series_uid, []).append(file)
        every = list(groups.values())
        if name is None:
            return every
        by_uid = [group for group in every if group[0].series_uid == name.strip()]
        return by_uid or [group for group in every if str(group[0].series_number) == name.strip()]


def find_images(folder: Path, *, source: str | None = None, limits: ReadLimits | None = None) -> ImageSearch:
    """Return the DICOM files with pixels in a folder and below it, through links to folders, too.

    Files that are not DICOM, directories of media (DICOMDIR), and objects that are no scan (SEG, RTSTRUCT, SR,
    PR and the like) are passed over.

    Raises:
        DicomSeriesError: for a damaged DICOM file, or a place that cannot be read.
        ScanTooLargeError: for a deflated file that could unpack to more than the limit.
    """
    shown = source or str(folder)
    candidates = dicom_candidates(folder, shown)
    with warnings.catch_warnings():
        # Values are parsed here, where a strange one warns nobody.
        warnings.simplefilter("ignore")
        files = [_image_file(path, shown, limits) for path in candidates.paths]
    return ImageSearch(tuple(file for file in files if file is not None), candidates.notes)


def _image_file(path: Path, source: str, limits: ReadLimits | None) -> ImageFile | None:
    """Return the file if it is a DICOM image; passing over a damaged one could shorten the scan."""
    try:
        if limits is not None:
            _check_deflated(path, source, limits)
        header = read_tags(path, OF_IMAGES, last_group=_LAST_GROUP)
        kind, modality = (str(header.get(keyword, "")) for keyword in ("SOPClassUID", "Modality"))
        is_image = kind in _IMAGE_STORAGES
        if is_image and not header.get("Rows"):
            # Attributes in another order than that of their tags.
            header = read_tags(path, OF_IMAGES)
    except ScanTooLargeError:
        raise
    except Exception as error:
        # pydicom raises whatever its parser met: KeyError, struct.error, ValueError, ...
        raise _damaged(path, source) from error
    if modality in _NOT_SCANS or kind == _MR_SPECTROSCOPY:
        return None
    if header.get("Rows") and header.get("Columns"):
        return ImageFile(path, header)
    if is_image or header.keys() <= {"TransferSyntaxUID"}:
        raise _damaged(path, source)
    return None


def _damaged(path: Path, source: str) -> DicomSeriesError:
    return DicomSeriesError(
        f"{source}: {path.name} is a damaged or unreadable DICOM file; copy it again, or take it out"
    )


def read_tags(path: Path, keywords: tuple[str, ...], *, last_group: int = 0x7FDF) -> dict[str, Any]:
    """Return attributes of a file by keyword; one that is missing, empty or breaks its type is left out.

    Nothing behind the last group is read. What pydicom raises where it cannot parse the file passes through.
    """
    from pydicom.filereader import read_partial

    keyword_of_tag = _keyword_of_tag(keywords)
    stop = (last_group + 1) << 16
    with path.open("rb") as file:
        dataset = read_partial(
            file, lambda tag, *_: tag >= stop, force=True, specific_tags=list(keyword_of_tag)
        )
    values = {}
    for part in (dataset.file_meta, dataset):
        for tag in part.keys() & keyword_of_tag.keys():  # few of all that are asked for are there
            value = valid_value(part, tag)
            if value is not None:
                values[keyword_of_tag[tag]] = value
    return values


@functools.cache
def _keyword_of_tag(keywords: tuple[str, ...]) -> dict[int, str]:
    from pydicom.datadict import tag_for_keyword

    tags = {tag_for_keyword(keyword): keyword for keyword in keywords}
    return {tag: keyword for tag, keyword in tags.items() if tag is not None}


def valid_value(dataset: "Dataset", tag: Any) -> Any:  # noqa: ANN401 - an attribute may be anything
    """Return the value of an attribute of a data set; None where it is missing, empty or breaks its type."""
    try:
        value = dataset.get(tag)
        value = getattr(value, "value", value)
    except Exception:
        # pydicom raises whatever its converter met: ValueError, struct.error, OverflowError, ...
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def shown_text(value: object) -> str:
    """Return what a file says as one short line, whatever it is; "" for None."""
    text = "" if value is None else str(value)[: 4 * _MAX_TEXT]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MAX_TEXT]


def whole_number(value: object) -> int | None:
    """Return an attribute as a whole number; None for anything else."""
    number = finite_numbers(value, 1)
    return int(number[0]) if number is not None and number[0].is_integer() else None


def finite_numbers(value: Any, count: int) -> NDArray[np.float64] | None:  # noqa: ANN401 - as above
    """Return an attribute as so many numbers, (count,); None for anything else."""
    values = value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, ArithmeticError):
        return None
    return np.array(numbers) if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _check_deflated(path: Path, source: str, limits: ReadLimits) -> None:
    """Refuse a deflated file that could unpack to too much: pydicom inflates it all at once."""
    from pydicom.filereader import read_file_meta_info

    with path.open("rb") as file:
        if file.read(START_BYTES)[-4:] != b"DICM":
            return
    if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        limits.check_bytes(path.stat().st_size * _MAX_DEFLATE_RATIO, f"{source}: {path.name}")


# The same in all images of a series (PS3.3, A.1.3); in which of them files differ is told.
_OF_ONE_SERIES = {"PatientID": "patients", "Modality": "modalities"}


def checked_series(files: Sequence[ImageFile], source: str) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Return the files that make the scan of a series, and a sentence for each thing a user should know.

    Localizers among other images are left out. DicomSeriesError for several patients or modalities.
    """
    localizers = [file for file in files if _is_localizer(file)]
    if len(localizers) == len(files):
        localizers = []
    kept = [file for file in files if not _is_localizer(file)] or list(files)
    for keyword, what in _OF_ONE_SERIES.items():
        values = dict.fromkeys(file.text(keyword) for file in kept)
        if len(values) > 1:
            listed = ", ".join(repr(value) for value in list(values)[:3])
            raise DicomSeriesError(
                f"{source}: one series has files of {len(values)} {what} ({listed}), but one is expected; take "
                "out those that do not belong to it"
            )
    notes = []
    if localizers:
        count = "1 localizer" if len(localizers) == 1 else f"{len(localizers)} localizers"
        notes.append(f"Left out of the series: {count} beside its slices.")
    frames = {file.text("FrameOfReferenceUID") for file in kept}
    if len(frames) > 1:
        notes.append(f"The files of the series say {len(frames)} frames of reference; they were taken for one.")
    return kept, (*notes, *_missing_numbers(kept, localizers))


def _is_localizer(file: ImageFile) -> bool:
    image_type = file.header.get("ImageType") or ()
    parts = [image_type] if isinstance(image_type, str) else image_type
    return "LOCALIZER" in (str(part).upper() for part in parts)


def _missing_numbers(kept: Sequence[ImageFile], localizers: Sequence[ImageFile]) -> list[str]:
    """Return a note where numbers say that there were more files; slices at the ends leave no other gap."""
    if any(file.is_multi_frame for file in kept):
        return []
    known = {number for file in kept if (number := _number(file)) is not None}
    if len(known) == len(kept):
        first, last = min(known), max(known)
        known |= {number for file in localizers if (number := _number(file)) is not None and number <= last}
        if min(known) >= 0 and min(known | {1}) < last - len(known) + 1:
            numbers = f"numbers from {first} to {last}"
            return [f"The {len(kept)} files of the series have {numbers}; slices may be missing."]
    promised = max(whole_number(file.header.get("ImagesInAcquisition")) or 0 for file in kept)
    if promised > len(kept):
        return [
            f"The series says that it has {promised} images, but there are {len(kept)}; some may be missing."
        ]
    return []


def _number(file: ImageFile) -> int | None:
    return whole_number(file.header.get("InstanceNumber"))

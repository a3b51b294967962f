"""Whether the files of a series are one scan, and all of it, as far as they say."""

from collections.abc import Sequence

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import ImageFile, whole_number

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

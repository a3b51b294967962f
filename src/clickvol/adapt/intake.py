"""What a user gives, in any of its forms, as a prepared data set: the gate of `clickvol data prepare`."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clickvol.datasets.preparation import PreparationPlan, Report, prepare_data_set
from clickvol.datasets.prepared import CaseModality, PreparedSet, is_prepared_set, read_prepared_set
from clickvol.datasets.sources import CaseFiles, Listing, SourceKind, list_folders, list_source
from clickvol.errors import ClickvolError, ConfigError
from clickvol.files.atomic import make_folder
from clickvol.interactive.record import RECORD_SUFFIX, ReadRecord, read_record, scan_hash
from clickvol.interactive.replay import replay_record
from clickvol.io.dicom.masks import holds_masks
from clickvol.io.formats import READABLE_SUFFIXES, read_volume, write_mask
from clickvol.io.input_path import suffix_of
from clickvol.io.volume import Mask
from clickvol.weights.load import load_model

MANIFEST_COLUMNS = ("scan", "label")
"""Columns that a manifest must have; `patient` may join them. A label may be the record of a session."""

_SESSION_MASKS = "session_masks"
_PREPARED = "prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What the user says of the cases.

    Attributes:
        source: folder of a data set (Decathlon, nnU-Net, images/ and labels/, prepared), of scans or of session
            records; or a manifest (CSV).
        labels: folder of the masks, or of session records, where `source` is a folder of scans.
        label: value of the object, or "all"; None as for `data prepare`.
        modality: of all scans; None for what they look like.
        groups: CSV with the columns case and group.
    """

    source: Path
    labels: Path | None = None
    label: int | Literal["all"] | None = None
    modality: CaseModality | None = None
    groups: Path | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    scan: Path
    label: Path
    patient: str


@dataclass(frozen=True, slots=True)
class CaseSource:
    """What a source was read as; nothing has been written for it.

    Attributes:
        intake: what the user said.
        kind: its layout.
        pairs: scans with their labels or records, where it has none that `data prepare` knows; else None.
        num_listed: scans or, where that is said, patients; None of a prepared set.
    """

    intake: Intake
    kind: SourceKind | Literal["prepared"]
    pairs: tuple[_Pair, ...] | None = None
    num_listed: int | None = None

    @classmethod
    def of_pairs(cls, intake: Intake, pairs: Sequence[_Pair]) -> "CaseSource":
        """Return the source of a list of scans."""
        patients = {pair.patient or str(number) for number, pair in enumerate(pairs)}
        return cls(intake, "folder", tuple(pairs), len(patients))


def read_source(intake: Intake) -> CaseSource:
    """Read which cases there are; nothing is written.

    Raises:
        ConfigError: when the source has no form that is known, or names what is not there.
    """
    source = intake.source
    if is_prepared_set(source):
        return CaseSource(intake, "prepared")
    if not source.exists():
        raise ConfigError(f"{source} is not there; give a folder with scans and masks, or a manifest (CSV)")
    if source.is_file():
        return CaseSource.of_pairs(intake, _read_manifest(source))
    records = source if intake.labels is None else intake.labels
    if any(records.glob(f"*{RECORD_SUFFIX}")):
        return CaseSource.of_pairs(intake, _matched_records(records, source))
    if intake.labels is not None:
        if not intake.labels.is_dir():
            raise ConfigError(f"{intake.labels} is no folder; give the folder of the masks or session records")
        return CaseSource(intake, "folder", num_listed=len(list_folders(source, intake.labels).cases))
    return _read_folder(intake)


def _read_folder(intake: Intake) -> CaseSource:
    """Read a data set, or a folder of DICOM studies."""
    source = intake.source
    index = source / "dataset.json"
    kind: SourceKind = "msd" if index.is_file() and "training" in _index(index) else "folder"
    try:
        return CaseSource(intake, kind, num_listed=len(list_source(kind, source).cases))
    except ConfigError as error:
        if kind == "msd" or (source / "images").is_dir():
            raise
        studies = _studies(source)
        if studies:
            return CaseSource.of_pairs(intake, studies)
        raise ConfigError(f"{error}; or give scans and masks apart: SCANS --labels MASKS") from error


def _studies(source: Path) -> list[_Pair]:
    """Pair the DICOM series in each folder of a patient with the one segmentation or structure set in it.

    Raises:
        ConfigError: when there are several in a folder.
    """
    pairs = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        masks = [path for path in sorted(folder.rglob("*")) if holds_masks(path)]
        if len(masks) > 1:
            raise ConfigError(
                f"{folder} holds {len(masks)} segmentations and structure sets, such as {masks[0].name} and "
                f"{masks[1].name}; keep one, or give a manifest (CSV) with the columns scan and label"
            )
        pairs += [_Pair(folder, path, folder.name) for path in masks]
    return pairs


def prepared_cases(read: CaseSource, work: Path, report: Report = lambda *_: None) -> PreparedSet:
    """Prepare the cases in a work folder; what is finished there is not done again.

    Raises:
        ConfigError: when there are several labels and nobody said which is meant.
        OutputError: when the work folder cannot be written.
    """
    intake, listing = read.intake, None
    if read.kind == "prepared":
        return read_prepared_set(intake.source)
    if read.pairs is not None:
        listing = _listing(read.pairs, intake.source, work / _SESSION_MASKS)
    elif intake.labels is not None:
        listing = list_folders(intake.source, intake.labels)
    plan = PreparationPlan(
        kind=read.kind,
        source=intake.source,
        destination=work / _PREPARED,
        tumour_label=intake.label,
        modality=intake.modality,
        groups=intake.groups,
        listing=listing,
    )
    return prepare_data_set(plan, report)


def _index(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}); correct it, or remove it") from error
    return content if isinstance(content, dict) else {}


def _read_manifest(path: Path) -> list[_Pair]:
    """Read a CSV file with the columns scan, label and, if wanted, patient; paths from its folder."""
    if suffix_of(path.name, (*READABLE_SUFFIXES, ".zip", ".json")) is not None:
        raise ConfigError(
            f"{path} is no manifest; give the folder with scans and masks (of an archive, unpacked), or a CSV "
            "file with the columns scan and label"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the manifest {path}: {error}; give a CSV file in UTF-8") from error
    pairs = []
    for number, row in enumerate(rows, start=1):
        cells = {
            str(name).strip(): (value or "").strip() for name, value in row.items() if isinstance(value, str)
        }
        missing = [name for name in MANIFEST_COLUMNS if not cells.get(name)]
        if missing:
            raise ConfigError(
                f"row {number} of {path} has no {missing[0]}; the columns are scan, label and perhaps patient"
            )
        scan, label = path.parent / cells["scan"], path.parent / cells["label"]
        for place in (scan, label):
            if not place.exists():
                raise ConfigError(f"row {number} of {path} names {place}, which is not there; correct the row")
        pairs.append(_Pair(scan, label, cells.get("patient", "")))
    if not pairs:
        raise ConfigError(f"{path} has no row; give one per scan, with the columns scan and label")
    return pairs


def _listing(pairs: Sequence[_Pair], source: Path, masks: Path) -> Listing:
    """List pairs as cases, after the masks of those that are sessions are written into a folder."""
    cases = []
    for number, pair in enumerate(pairs, start=1):
        case, label = f"{number:03d}-{_stem(pair.scan)}", pair.label
        if label.name.endswith(RECORD_SUFFIX):
            label = masks / f"{case}.nii.gz"
            _write_session_mask(pair, label)
        cases.append(CaseFiles(case, pair.scan, label, group=pair.patient))
    return Listing(source.resolve().name, tuple(cases))


def _matched_records(records: Path, scans: Path) -> list[_Pair]:
    """Pair session records with the scans that they were made with, by the hash of the scan.

    Raises:
        ConfigError: when a scan is not there.
    """
    read = [(path, read_record(path)) for path in sorted(records.glob(f"*{RECORD_SUFFIX}"))]
    useful = [(path, record) for path, record in read if record.num_clicks]
    missing = {record.header.scan_sha256: path for path, record in useful}
    scan_of: dict[str, Path] = {}
    for scan in _scans_below(scans):
        if not missing.keys() - scan_of.keys():
            break
        try:
            scan_of.setdefault(scan_hash(read_volume(scan)), scan)
        except ClickvolError:  # some other file
            continue
    lost = sorted(str(path) for sha256, path in missing.items() if sha256 not in scan_of)
    if lost or not useful:
        what = f"the scan of {lost[0]} is not in {scans}" if lost else f"no record in {records} has a click"
        raise ConfigError(f"{what}; give the folder of the scans, and that of the records with --labels")
    newest: dict[str, tuple[str, Path]] = {}
    for path, record in useful:
        known = newest.get(record.header.scan_sha256)
        if known is None or known[0] < record.last_time:
            newest[record.header.scan_sha256] = (record.last_time, path)
    return [_Pair(scan_of[sha256], path, "") for sha256, (_, path) in newest.items()]


def _scans_below(folder: Path) -> Iterator[Path]:
    """Yield what may be a scan: readable files, and folders with DICOM files."""
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and suffix_of(path.name, READABLE_SUFFIXES) is not None
        if is_file or (path.is_dir() and any(path.glob("*.dcm"))):
            yield path


def _write_session_mask(pair: _Pair, target: Path) -> None:
    """Answer the clicks of a session again, and write all of its objects as one mask."""
    record: ReadRecord = read_record(pair.label)
    done = replay_record(pair.label, read_volume(pair.scan), load_model(record.header.model_id))
    labels = done.mask()
    make_folder(target.parent)
    # Every object is an example; which number it has does not matter.
    write_mask(Mask((labels.array > 0).astype(np.uint8), labels.grid), target)


def _stem(path: Path) -> str:
    """Return the name of a scan without the suffix by which it is read; a folder's as it is."""
    suffix = "" if path.is_dir() else suffix_of(path.name, (*READABLE_SUFFIXES, path.suffix.lower())) or ""
    return path.name[: len(path.name) - len(suffix)]

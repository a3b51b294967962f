"""A list of scans to annotate: who has which, what is done, and what came of it.

The list is kept in one JSON file, written whole after every change, so that it survives the process. A case
that one annotator holds is given to no other one until it is done, skipped, or its lease is over.
"""

import csv
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.batch.manifest import read_manifest
from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path, write_text
from clickvol.io.dicom.reading.search import is_dicom_file
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import WRITABLE_SUFFIXES
from clickvol.io.input_path import suffix_of
from clickvol.io.volume import Modality
from clickvol.server.refusal import RefusedError
from clickvol.server.settings import ServerSettings

Status = Literal["new", "in progress", "done", "skipped"]

_SCAN_SUFFIXES = (".nii.gz", ".nii.zst", ".nii", ".nrrd", ".mha", ".mgz")
_MASK_ENDING = "_mask.nii.gz"
_SUMMARY = "worklist.csv"
_CLAIM_SECONDS = 120
"""A page renews its claim every 30 s; one that is gone gives its case back soon. Chosen."""

_COLUMNS = ("scan", "mask", "status", "object", "volume_ml", "longest_diameter_mm", "clicks", "seconds")


@dataclass(frozen=True, slots=True)
class Case:
    """A scan to annotate.

    Attributes:
        id: from 1, its place in the list.
        name: for lists.
        scan: file or folder.
        output: where its label map goes, NIfTI.
        series: of a DICOM folder with several.
        modality: where a manifest says what the file does not.
        volume: of several in the file or series, from 0.
    """

    id: int
    name: str
    scan: Path
    output: Path
    series: str | None = None
    modality: Modality | None = None
    volume: int | None = None


class Measured(BaseModel):
    """What was saved of an object."""

    model_config = ConfigDict(frozen=True)

    name: str
    volume_ml: float
    longest_diameter_mm: float
    num_clicks: int


class CaseState(BaseModel):
    """Where a case stands."""

    model_config = ConfigDict(frozen=True)

    status: Status = "new"
    annotator: str | None = None
    until: float = 0.0
    seconds: float = 0.0
    objects: list[Measured] = []


class _Kept(BaseModel):
    """What is on disk, by the path of the mask: several cases may be on one scan."""

    cases: dict[str, CaseState] = {}


def read_cases(source: Path, output: Path) -> tuple[Case, ...]:
    """Read the list of a manifest, or of the scans below a folder.

    Args:
        source: a CSV file as for `clickvol batch`, or a folder with .nii, .nii.gz, .nrrd or .mha files.
        output: folder that masks go to; those of a folder's scans at the same place below it.

    Raises:
        ConfigError: when there is no scan, the manifest cannot be read, or a row of it cannot be used here.
    """
    cases = _cases_of_manifest(source, output) if source.is_file() else _cases_below(source, output)
    if not cases:
        raise ConfigError(
            f"{source} names no scan; give a manifest, or a folder with .nii.gz, .nrrd or .mha files"
        )
    return cases


def is_worklist(path: Path) -> bool:
    """Tell whether a path is a list of scans: a CSV file, or a folder with several, no DICOM at its top.

    DICOM files that lie in one folder, or below one, are a scan: which series of it is asked when it is opened.
    """
    if not path.is_dir():
        return path.suffix.lower() == ".csv"
    if any(is_dicom_file(place) for place in path.iterdir() if place.is_file()):
        return False
    return len(_cases_below(path, default_output(path))) > 1


def default_output(source: Path) -> Path:
    """Return the folder that masks of a worklist go to where none is given: beside it."""
    source = source.resolve()
    return source.with_name(f"{source.stem if source.is_file() else source.name}-masks")


def _cases_of_manifest(source: Path, output: Path) -> tuple[Case, ...]:
    cases = []
    for row in read_manifest(source, output):
        job, problem = row.job, row.problem
        if job is not None and not job.mask.name.lower().endswith(WRITABLE_SUFFIXES):
            problem = f"the viewer does not write {job.mask.name!r} here; end it in .nii.gz"
        elif job is not None and not job.scan.exists():
            problem = f"there is no {job.scan}"
        if job is None or problem is not None:
            raise ConfigError(f"row {row.number} of {source}: {problem}; correct the row, or leave it out")
        cases.append(Case(row.number, row.scan, job.scan, job.mask, job.series, job.modality, job.volume_index))
    return tuple(cases)


def _cases_below(source: Path, output: Path) -> tuple[Case, ...]:
    """Return the files with scans below a folder, and the DICOM series of each of its folders."""
    listed: list[tuple[str, Path, Path, str | None]] = []
    masks: set[Path] = set()

    def add(name: str, scan: Path, inner: Path, series: str | None = None) -> None:
        mask = output / inner.with_name(inner.name + _MASK_ENDING)
        number = 2
        while mask in masks:  # a.nii.gz and a.nrrd
            mask = output / inner.with_name(f"{inner.name}_{number}{_MASK_ENDING}")
            number += 1
        masks.add(mask)
        listed.append((name, scan, mask, series))

    for path in sorted(source.rglob("*")):
        suffix = suffix_of(path.name, _SCAN_SUFFIXES)
        if suffix is None or path.name.endswith(_MASK_ENDING) or output in path.parents or not path.is_file():
            continue
        inner = path.relative_to(source)
        add(str(inner), path, inner.with_name(path.name[: -len(suffix)]))
    for folder in sorted(place for place in source.iterdir() if place.is_dir() and place != output):
        if not any(is_dicom_file(path) for path in folder.rglob("*") if path.is_file()):
            continue
        for series in list_series(folder):
            words = [folder.name, series.description or f"series {series.number}"]
            # Not by the description, which may name a patient.
            add(", ".join(words), folder, Path(f"{folder.name}_{series.uid}"), series.uid)
    return tuple(Case(n, *words) for n, words in enumerate(listed, start=1))


class Worklist:
    """The cases of a server.

    Args:
        cases: in their order.
        state_file: where it is kept.
        summary_file: the CSV file of what was done.
        lease_seconds: how long a case is held without being asked for.

    Attributes:
        pictures: of the cases that somebody has looked at; None where a scan could not be read.
    """

    def __init__(
        self, cases: tuple[Case, ...], state_file: Path, summary_file: Path, lease_seconds: int
    ) -> None:
        self.cases = cases
        self._state_file, self._summary_file = state_file, summary_file
        self._lease_seconds = lease_seconds
        self.pictures: dict[int, str | None] = {}
        kept = _Kept()
        if state_file.exists():
            try:
                kept = _Kept.model_validate_json(state_file.read_bytes())
            except (OSError, ValidationError) as error:
                raise ConfigError(f"cannot read {state_file}; move it away to begin the list anew") from error
        self._states = {
            # A mask that is there already is somebody's work: only who opens that case replaces it.
            case.id: kept.cases.get(str(case.output))
            or CaseState(status="done" if case.output.exists() else "new")
            for case in cases
        }

    def case(self, case_id: int) -> Case:
        """Return a case; RefusedError 404 when there is none."""
        if case_id not in self._states:
            raise RefusedError(404, f"there is no case {case_id}; there are 1 to {len(self.cases)}")
        return self.cases[case_id - 1]

    def state(self, case_id: int) -> CaseState:
        """Return where a case stands."""
        self.case(case_id)
        return self._states[case_id]

    def claim(self, case_id: int, annotator: str) -> CaseState:
        """Give a case to an annotator, or renew the lease.

        Raises:
            RefusedError: 404 when there is none, 409 when another one holds it.
        """
        state = self.state(case_id)
        if self.is_held(case_id, annotator):
            raise RefusedError(409, "another annotator has this case; take the next one")
        status: Status = "in progress" if state.status in ("new", "skipped") else state.status
        changes = {"status": status, "annotator": annotator, "until": time.time() + self._lease_seconds}
        return self._set(case_id, state.model_copy(update=changes))

    def claim_next(self, annotator: str, after: int = 0) -> Case | None:
        """Give the next case that is not done to an annotator, coming round; None where there is none."""
        ordered = [*self.cases[after:], *self.cases[:after]]
        for case in ordered:
            state = self._states[case.id]
            if (
                case.id != after
                and state.status in ("new", "in progress")
                and not self.is_held(case.id, annotator)
            ):
                self.claim(case.id, annotator)
                return case
        return None

    def finish(
        self, case_id: int, annotator: str, *, skipped: bool, seconds: float, objects: list[Measured]
    ) -> CaseState:
        """Say that a case is done, or skipped; what was saved goes into the summary.

        Raises:
            RefusedError: as `claim`.
        """
        self.claim(case_id, annotator)
        state = CaseState(status="skipped" if skipped else "done", seconds=seconds, objects=objects)
        changed = self._set(case_id, state)
        self._write_summary()
        return changed

    def is_held(self, case_id: int, annotator: str) -> bool:
        """Tell whether another annotator has a case."""
        state = self.state(case_id)
        return state.annotator not in (None, annotator) and state.until > time.time()

    def _set(self, case_id: int, state: CaseState) -> CaseState:
        states = self._states | {case_id: state}
        kept = _Kept(cases={str(case.output): states[case.id] for case in self.cases})
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._state_file, kept.model_dump_json())
        self._states = states
        return state

    def _write_summary(self) -> None:
        self._summary_file.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(self._summary_file, ".csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for case in self.cases:
                state = self._states[case.id]
                if state.status not in ("done", "skipped"):
                    continue
                first = (case.name, str(case.output), state.status)
                objects: list[Measured | None] = [*state.objects] or [None]
                for one in objects:
                    cells = (
                        ("", "", "", "")
                        if one is None
                        else (
                            one.name,
                            f"{one.volume_ml:.4g}",
                            f"{one.longest_diameter_mm:.1f}",
                            one.num_clicks,
                        )
                    )
                    writer.writerow((*first, *cells, f"{state.seconds:.1f}"))


def worklist_of(settings: ServerSettings) -> Worklist | None:
    """Return the worklist of a server, as an earlier process left it; None where it has none.

    Raises:
        ConfigError: when its list cannot be read.
    """
    source, output = settings.worklist_source, settings.worklist_output
    if source is None or output is None:
        return None
    summary = output / _SUMMARY
    if summary.resolve() == source.resolve():
        raise ConfigError(f"{source} would be replaced by the summary; give another output folder")
    places = f"{source.resolve()}\n{output.resolve()}"
    kept = settings.state_folder / "worklists" / f"{hashlib.sha256(places.encode()).hexdigest()[:16]}.json"
    seconds = min(settings.lease_seconds, _CLAIM_SECONDS)
    return Worklist(read_cases(source, output), kept, summary, seconds)

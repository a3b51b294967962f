"""The whole of an evaluation: from models and data to a folder with one table; stoppable and resumable."""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pandas as pd

from clickvol.datasets.pictures import PictureCase
from clickvol.datasets.prepared import LabelledCase
from clickvol.errors import ClickvolError, ConfigError
from clickvol.evaluation.cases import EvaluatedCase, EvaluationData, OrganMaskChoice, open_data
from clickvol.evaluation.masks_of_clicks import MissingMaskError, WantedMask, write_todo
from clickvol.evaluation.methods import Method, Scan, parse_methods
from clickvol.evaluation.protocol import NO_CLICK, ROBUSTNESS_PLACEMENTS, Placement, Protocol
from clickvol.evaluation.records import RunKey, score_table, write_table
from clickvol.evaluation.result_log import ResultLog
from clickvol.evaluation.run_case import ORGAN_ORACLE, EvaluationCase, Run, RunOutcome, run_case
from clickvol.evaluation.simulated_user import Truth
from clickvol.files.atomic import remove_abandoned, write_text
from clickvol.files.lock import only_process_in
from clickvol.parallel.rows import OnProgress, RowFailure, check_workers, run_rows
from clickvol.version import __version__
from clickvol.weights.device import choose_device, device_of_worker

MASKS_NAME = "masks"
NOT_EVALUATED_NAME = "not_evaluated.json"

EMPTY_LABEL = "the label is empty: no click can be placed, so there is nothing to score"

# The user whose last masks are kept, for pictures.
_KEPT_SEED = 0

# First clicks that have nothing random: all users would do the same.
_CERTAIN_PLACEMENTS: tuple[Placement, ...] = ("centre", "box")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """One evaluation.

    Attributes:
        methods: words, see `evaluation.methods`.
        data: words, see `evaluation.cases`.
        folder: of the report; made where it is missing.
        limit: only so many first cases of each data set; None for all.
        reference: name of the method that the others are compared with; None for no comparison.
        robustness: also click once at the centre, well inside, near the edge and outside of the object.
        organ_mask: what is shown to methods that see an organ mask.
        workers: processes on this machine, each with all models; see `run_rows`.
        scheduler: of a Dask cluster; see `run_rows`.

    Raises:
        ConfigError: on construction, for an organ mask that is none of the choices.
    """

    methods: tuple[str, ...]
    data: tuple[str, ...]
    folder: Path
    protocol: Protocol
    split: str = "test"
    fold: int = 0
    limit: int | None = None
    reference: str | None = None
    robustness: bool = False
    organ_mask: OrganMaskChoice = "none"
    device: str = "auto"
    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers, self.scheduler)
        if self.organ_mask not in get_args(OrganMaskChoice):
            raise ConfigError(
                f"there is no organ mask {self.organ_mask!r} to evaluate with; choose one of "
                f"{', '.join(get_args(OrganMaskChoice))}"
            )


@dataclass(frozen=True, slots=True)
class CaseJob:
    """A case, by its place in the list of data sets, and its runs, each with the index of its method."""

    request: EvaluationRequest
    data_index: int
    case_index: int
    runs: tuple[tuple[int, Run], ...]


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What came of a case: why it was skipped, or its runs, or masks that are wanted in their place."""

    skipped: str | None
    runs: Iterable[RunOutcome | WantedMask] = ()


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that no method was asked about, and why, in one line."""

    data: str
    case_id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What came of an evaluation; all of it is on disk too."""

    request: EvaluationRequest
    methods: tuple[Method, ...]
    data: tuple[EvaluationData, ...]
    device: str
    table: pd.DataFrame
    skipped: tuple[SkippedCase, ...]
    warnings: tuple[str, ...] = ()

    def outcome(self) -> str:
        """Return how much was done, in one line."""
        failures = self.table["failure"].count()
        return (
            f"{len(self.table)} scores of {len(self.methods)} methods, {failures} failures, "
            f"{len(self.skipped)} cases not evaluated"
        )


def run_evaluation(
    request: EvaluationRequest, *, on_progress: OnProgress = lambda _done, _total, _text: None
) -> Evaluated:
    """Ask every method about every case, and keep the scores; runs that are on disk are not done again.

    Raises:
        ConfigError: for words that name nothing, a folder that holds another evaluation or is in use, a method
            that cannot be asked, masks of clicks that another program is still to make, or when no case could
            be evaluated.
        ClickvolError: when a model cannot be loaded or the results cannot be written.
    """
    data = open_data(request.data, split=request.split, fold=request.fold, limit=request.limit)
    device = str(choose_device(request.device))
    methods = parse_methods(request.methods, device=device, procedure=request.protocol.procedure)
    names = [method.name for method in methods]
    if request.reference not in (None, *names):
        raise ConfigError(
            f"the reference {request.reference!r} is not evaluated; choose one of {', '.join(names)}"
        )
    _check_organ_masks(request, methods, data)
    jobs = plan_jobs(request, methods, data)
    expected = {run.key: run.num_clicks for job in jobs for _, run in job.runs}
    with only_process_in(request.folder):
        for folder in (request.folder, *(request.folder / MASKS_NAME).rglob("*/")):
            remove_abandoned(folder)
        settings = _settings(request, methods, data, device)
        log = ResultLog(request.folder, settings, lambda key, numbers: expected.get(key) == tuple(numbers))
        skipped = _do_missing(request, jobs, methods, data, settings, log, on_progress)
        not_evaluated = json.dumps([asdict(case) for case in skipped], indent=1)
        write_text(request.folder / NOT_EVALUATED_NAME, not_evaluated + "\n")
        order = {key: number for number, key in enumerate(expected)}  # not that in which cases were done
        rows = sorted(log.rows(), key=lambda row: order[RunKey.of(row)])
        table = score_table(rows)
        write_table(table, request.folder)
    warnings = tuple(_training_warnings(methods, data))
    return Evaluated(request, tuple(methods), tuple(data), device, table, tuple(skipped), warnings)


def _training_warnings(methods: Sequence[Method], data: Sequence[EvaluationData]) -> Iterator[str]:
    """Yield one sentence for every model and data set with scans, or else ids of patients, of its training."""
    for method in methods:
        for one_set in data:
            total = len(one_set.cases)
            scans = sum(case.scan_mark in method.trained_on for case in one_set.cases)
            patients = sum(case.patient_mark in method.trained_on for case in one_set.cases)
            if scans:
                what, but = f"{scans} of the {total} scans of {one_set.name}", ":"
            elif patients:
                what = f"patients with the ids of {patients} of the {total} scans of {one_set.name}"
                but = "; if they are the same people,"
            else:
                continue
            yield f"{method.name} was trained on {what}{but} its scores there say little about new patients"


def _check_organ_masks(
    request: EvaluationRequest, methods: Sequence[Method], data: Sequence[EvaluationData]
) -> None:
    if request.organ_mask == "none":
        return
    if not any(method.takes_organ_mask for method in methods):
        names = ", ".join(method.name for method in methods)
        raise ConfigError(
            f"{names} look at no organ mask; leave --organ-mask out, or name a model of the method tags"
        )
    for one_set in data:
        without = next((case.case_id for case in one_set.cases if not case.has_organ), None)
        if request.organ_mask == "file" and without is not None:
            raise ConfigError(
                f"{without} of {one_set.name} has no organ mask; give a set that was prepared with --organs, "
                "or leave --organ-mask out"
            )
        if request.organ_mask == "gt" and any(case.tumour_label is None for case in one_set.cases):
            raise ConfigError(
                f"the labels of {one_set.name} tell no organ from the tumour; give a set that was prepared "
                "with --label, or leave --organ-mask out"
            )


def _settings(
    request: EvaluationRequest, methods: Sequence[Method], data: Sequence[EvaluationData], device: str
) -> dict[str, Any]:
    """Return what decides the results, by the words a person knows it by; organ masks where there are any."""
    shown = {} if request.organ_mask == "none" else {"organ_mask": request.organ_mask}
    return shown | {
        "protocol": request.protocol.settings(),
        "robustness": request.robustness,
        "models": {method.name: method.fingerprint for method in methods},
        "data": {
            one_set.name: {
                "content_hash": one_set.content_hash,
                "cases": [case.case_id for case in one_set.cases],
            }
            for one_set in data
        },
        "split": request.split,
        "fold": request.fold,
        "device": device,
        "clickvol version": __version__,
    }


def plan_jobs(
    request: EvaluationRequest, methods: Sequence[Method], data: Sequence[EvaluationData]
) -> list[CaseJob]:
    """Return every case with its runs, in the order in which they are done."""
    return [
        CaseJob(
            request,
            data_index,
            case_index,
            tuple(
                (index, run)
                for index, method in enumerate(methods)
                for run in _runs(request, method, one_set.name, case)
            ),
        )
        for data_index, one_set in enumerate(data)
        for case_index, case in enumerate(one_set.cases)
    ]


def _runs(request: EvaluationRequest, method: Method, data: str, case: EvaluatedCase) -> Iterator[Run]:
    protocol, case_id = request.protocol, case.case_id
    suffix = ".png" if isinstance(case, PictureCase) else ".nii.gz"
    if not method.takes_clicks:
        key = RunKey(method.name, data, case_id, _KEPT_SEED, NO_CLICK)
        yield Run(key=key, placement=None, num_clicks=(0,), mask_file=mask_file(request.folder, key, suffix))
        return
    numbers: dict[Placement, tuple[int, ...]] = {protocol.first_click: protocol.num_clicks}
    if protocol.corrected_clicks:
        numbers["centre"] = protocol.corrected_clicks
    if request.robustness:
        numbers |= {place: (1,) for place in ROBUSTNESS_PLACEMENTS if place not in numbers}
    for placement, num_clicks in numbers.items():
        certain = placement in _CERTAIN_PLACEMENTS and (protocol.next_clicks == "error" or num_clicks == (1,))
        for seed in range(1 if certain else protocol.seeds):
            key = RunKey(method.name, data, case_id, seed, placement)
            is_kept = placement == protocol.first_click and seed == _KEPT_SEED
            file = mask_file(request.folder, key, suffix) if is_kept else None
            yield Run(key=key, placement=placement, num_clicks=num_clicks, mask_file=file)


def mask_file(folder: Path, key: RunKey, suffix: str = ".nii.gz") -> Path:
    """Return where the mask of a run is kept: masks/MODEL/DATA/CASE.nii.gz, or .png for a picture."""
    model, data, case = (_file_name(text) for text in (key.model, key.data, key.case_id))
    return folder / MASKS_NAME / model / data / f"{case}{suffix}"


def _file_name(text: str) -> str:
    """Return a name of its own for every text, without what a file's name may not hold."""
    name = quote(text, safe=" +")
    return name.replace(".", "%2E") if set(name) == {"."} else name


def _do_missing(
    request: EvaluationRequest,
    jobs: Sequence[CaseJob],
    methods: Sequence[Method],
    data: Sequence[EvaluationData],
    settings: Mapping[str, Any],
    log: ResultLog,
    on_progress: OnProgress,
) -> list[SkippedCase]:
    """Do the runs that are missing, write each when it is done, and return the cases that have none."""
    total = sum(len(job.runs) for job in jobs)
    missing = [replace(job, runs=tuple(run for run in job.runs if run[1].key not in log)) for job in jobs]
    missing = [job for job in missing if job.runs]
    done = total - sum(len(job.runs) for job in missing)
    on_progress(done, total, "")
    skipped: list[SkippedCase] = []
    wanted: list[WantedMask] = []

    def keep(job: CaseJob, outcome: CaseOutcome | RowFailure) -> None:
        nonlocal done
        one_set = data[job.data_index]
        case_id = one_set.cases[job.case_index].case_id
        text = f"{one_set.name} {case_id}"
        reason = outcome.reason if isinstance(outcome, RowFailure) else outcome.skipped
        if reason is not None:
            skipped.append(SkippedCase(one_set.name, case_id, reason))
            done += len(job.runs)
            on_progress(done, total, text)
        for run in () if isinstance(outcome, RowFailure) else outcome.runs:
            if isinstance(run, WantedMask):
                scan = one_set.cases[job.case_index].native_image_path
                wanted.append(replace(run, scan=str(scan)))
                continue
            log.append(run.key, run.rows, run.clicks)
            done += 1
            on_progress(done, total, f"{text} {run.key.model}")

    if request.workers == 1 and request.scheduler is None:
        work = functools.partial(_run_job, methods=methods, data=data)  # run by run, as they are kept
    else:
        work = functools.partial(evaluate_case, settings=json.dumps(settings, sort_keys=True))
    run_rows(work, missing, keep, workers=request.workers, scheduler=request.scheduler)
    if wanted:
        folders = sorted({one.folder for one in wanted})
        lists = [write_todo(one for one in wanted if one.folder == folder) for folder in folders]
        raise ConfigError(
            f"{len({*wanted})} masks of clicks are still to be made by another program; make those that "
            f"{', '.join(map(str, lists))} lists, and give the same command again"
        )
    return skipped


def evaluate_case(job: CaseJob, settings: str) -> CaseOutcome:
    """Do a job in any process that sees the files; other settings open models and cases anew."""
    outcome = _run_job(job, *_opened(job.request, settings))
    return CaseOutcome(outcome.skipped, tuple(outcome.runs))


@functools.lru_cache(maxsize=1)
def _opened(
    request: EvaluationRequest, _settings: str
) -> tuple[tuple[Method, ...], tuple[EvaluationData, ...]]:
    data = open_data(request.data, split=request.split, fold=request.fold, limit=request.limit)
    device = device_of_worker(request.device)
    methods = parse_methods(request.methods, device=device, procedure=request.protocol.procedure)
    return tuple(methods), tuple(data)


def _run_job(job: CaseJob, methods: Sequence[Method], data: Sequence[EvaluationData]) -> CaseOutcome:
    """Return why a case is not evaluated, or the outcomes of its runs, each computed when it is asked for."""
    case = _read_case(data[job.data_index], job.case_index, job.request.organ_mask)
    if isinstance(case, str):
        return CaseOutcome(case)
    return CaseOutcome(None, (_done_or_wanted(methods[i], case, run, job.request) for i, run in job.runs))


def _done_or_wanted(
    method: Method, case: EvaluationCase, run: Run, request: EvaluationRequest
) -> RunOutcome | WantedMask:
    try:
        return run_case(method, case, run, request.protocol)
    except MissingMaskError as error:
        return error.wanted


def _read_case(one_set: EvaluationData, case_index: int, organ_mask: OrganMaskChoice) -> EvaluationCase | str:
    """Read a case; the reason in one line where nothing can be asked about it."""
    case = one_set.cases[case_index]
    try:
        volume, label = case.read_native()
        organ = None
        if organ_mask != "none" and isinstance(case, LabelledCase):
            organ = case.read_native_organ() if organ_mask == "gt" else case.read_organ()
    except ClickvolError as error:
        return str(error)
    truth = Truth.of(label)
    if truth is None:
        return EMPTY_LABEL
    scan = Scan.blind(one_set.name, case.case_id, volume)
    with_organ = None if organ is None else replace(scan, organ=organ)
    oracle = ORGAN_ORACLE if organ_mask == "gt" else None
    return EvaluationCase(scan, truth, case.group, case.modality, with_organ, oracle)

"""The whole of an evaluation: from models and data to a folder with a report; stoppable and resumable."""

import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import pandas as pd
import torch

from clickvol.errors import ClickvolError, ConfigError
from clickvol.evaluation.asking import Examined, RunOutcome, ask
from clickvol.evaluation.cases import EvaluationData, OrganMaskChoice, open_data
from clickvol.evaluation.contestants import Contestant, Scan
from clickvol.evaluation.entries import make_contestants
from clickvol.evaluation.plan import (
    MASKS_NAME,
    EvaluationRequest,
    PlannedCase,
    plan_runs,
    settings_of,
)
from clickvol.evaluation.records import score_table, write_table
from clickvol.evaluation.result_log import ResultLog
from clickvol.evaluation.simulated_user import Truth
from clickvol.files.atomic import atomic_path, remove_abandoned
from clickvol.files.lock import only_process_in
from clickvol.weights.device import choose_device

NOT_EVALUATED_NAME = "not_evaluated.json"

EMPTY_LABEL = "the label is empty: no click can be placed, so there is nothing to score"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is.

    Attributes:
        done, total: runs.
        text: what was done last.
    """

    done: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A case that no contestant was asked about.

    Attributes:
        data, case_id: which.
        reason: one line.
    """

    data: str
    case_id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What an evaluation found; all of it is on disk too.

    Attributes:
        request: what was asked for.
        contestants: who was asked.
        data: on what.
        device: where models computed.
        table: one row per model, scan, user and number of clicks, see `evaluation.records`.
        skipped: cases without an answer by anybody.
    """

    request: EvaluationRequest
    contestants: tuple[Contestant, ...]
    data: tuple[EvaluationData, ...]
    device: str
    table: pd.DataFrame
    skipped: tuple[SkippedCase, ...]

    def outcome(self) -> str:
        """Return how much was done, in one line."""
        failures = self.table["failure"].count()
        return (
            f"{len(self.table)} scores of {len(self.contestants)} contestants, {failures} failures, "
            f"{len(self.skipped)} cases not evaluated"
        )


def run_evaluation(
    request: EvaluationRequest, *, on_progress: Callable[[Progress], None] = lambda _: None
) -> Evaluated:
    """Ask every contestant about every case, and keep the scores; runs that are on disk are not done again.

    Args:
        request: who, on what, by which rules, and where the results go.
        on_progress: called after every run.

    Raises:
        ConfigError: for words that name nothing, a folder that holds another evaluation or is in use, or a
            contestant that cannot be asked.
        ClickvolError: when a model cannot be loaded or the results cannot be written.
    """
    data = open_data(request.data, split=request.split, fold=request.fold, limit=request.limit)
    device = str(choose_device(request.device))
    contestants = make_contestants(request.contestants, device=device)
    _check_reference(request, contestants)
    _check_organ_masks(request, contestants, data)
    cases = plan_runs(request, contestants, data)
    expected = {run.key: run.num_clicks for case in cases for _, run in case.runs}
    with only_process_in(request.folder):
        for folder in (request.folder, *(request.folder / MASKS_NAME).rglob("*/")):
            remove_abandoned(folder)
        log = ResultLog(
            request.folder,
            settings_of(request, contestants, data, device),
            lambda key, numbers: expected.get(key) == tuple(numbers),
        )
        skipped = _answer_all(request, contestants, data, cases, log, on_progress)
        with atomic_path(request.folder / NOT_EVALUATED_NAME, ".json") as temporary:
            content = [{"data": s.data, "case_id": s.case_id, "reason": s.reason} for s in skipped]
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        table = score_table(log.rows())
        write_table(table, request.folder)
    return Evaluated(request, tuple(contestants), tuple(data), device, table, tuple(skipped))


def _check_reference(request: EvaluationRequest, contestants: Sequence[Contestant]) -> None:
    names = [contestant.name for contestant in contestants]
    if request.reference is not None and request.reference not in names:
        raise ConfigError(
            f"the reference {request.reference!r} is not evaluated; choose one of {', '.join(names)}"
        )


def _check_organ_masks(
    request: EvaluationRequest, contestants: Sequence[Contestant], data: Sequence[EvaluationData]
) -> None:
    if request.organ_mask == "none":
        return
    if not any(contestant.takes_organ_mask for contestant in contestants):
        names = ", ".join(contestant.name for contestant in contestants)
        raise ConfigError(
            f"{names} look at no organ mask; leave --organ-mask out, or name a model of the method tags"
        )
    for one_set in data:
        if any(case.tumour_label is None for case in one_set.cases):
            raise ConfigError(
                f"the labels of {one_set.name} tell no organ from the tumour; give a set that was prepared "
                "with --label, or leave --organ-mask out"
            )


def _answer_all(
    request: EvaluationRequest,
    contestants: Sequence[Contestant],
    data: Sequence[EvaluationData],
    cases: Sequence[PlannedCase],
    log: ResultLog,
    on_progress: Callable[[Progress], None],
) -> list[SkippedCase]:
    """Do the runs that are missing, write each when it is done, and return the cases that have none."""
    total = sum(len(case.runs) for case in cases)
    missing = [
        PlannedCase(
            case.data_index,
            case.case_index,
            tuple((index, run) for index, run in case.runs if run.key not in log),
        )
        for case in cases
    ]
    missing = [case for case in missing if case.runs]
    done = total - sum(len(case.runs) for case in missing)
    on_progress(Progress(done, total, ""))
    if request.workers > 1:
        answers = _in_processes(request, missing)
    else:
        answers = (_case_answers(contestants, data, case, request) for case in missing)
    skipped = []
    for case, (reason, outcomes) in zip(missing, answers, strict=True):
        one_set = data[case.data_index]
        case_id = one_set.cases[case.case_index].case_id
        text = f"{one_set.name} {case_id}"
        if reason is not None:
            skipped.append(SkippedCase(one_set.name, case_id, reason))
            done += len(case.runs)
            on_progress(Progress(done, total, text))
        for outcome in outcomes:
            log.append(outcome.key, outcome.rows, outcome.clicks)
            done += 1
            on_progress(Progress(done, total, f"{text} {outcome.key.model}"))
    return skipped


def _case_answers(
    contestants: Sequence[Contestant],
    data: Sequence[EvaluationData],
    case: PlannedCase,
    request: EvaluationRequest,
) -> tuple[str | None, Iterator[RunOutcome]]:
    """Return why a case is not evaluated, or the outcomes of its runs as they come."""
    examined = _examine(data[case.data_index], case.case_index, request.organ_mask)
    if isinstance(examined, str):
        return examined, iter(())
    return None, (ask(contestants[index], examined, run, request.protocol) for index, run in case.runs)


def _examine(one_set: EvaluationData, case_index: int, organ_mask: OrganMaskChoice) -> Examined | str:
    """Read a case; the reason in one line where nothing can be asked about it."""
    case = one_set.cases[case_index]
    try:
        volume, label = case.read_native()
        organ = case.read_native_organ() if organ_mask == "gt" else None
    except ClickvolError as error:
        return str(error)
    truth = Truth.of(label)
    if truth is None:
        return EMPTY_LABEL
    scan = Scan.blind(one_set.name, case.case_id, volume)
    with_organ = None if organ is None else replace(scan, organ=organ)
    return Examined(scan, truth, case.group, case.modality, with_organ)


def _in_processes(
    request: EvaluationRequest, cases: Sequence[PlannedCase]
) -> Iterator[tuple[str | None, Iterator[RunOutcome]]]:
    """Answer case by case in several processes, and hand the answers out in order."""
    threads = max(1, (os.cpu_count() or 1) // request.workers)
    with ProcessPoolExecutor(
        request.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(threads,),
    ) as pool:
        futures = [pool.submit(_case_in_process, request, case) for case in cases]
        try:
            for future in futures:
                reason, outcomes = future.result()
                yield reason, iter(outcomes)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _case_in_process(request: EvaluationRequest, case: PlannedCase) -> tuple[str | None, list[RunOutcome]]:
    contestants, data = _opened(request)
    reason, outcomes = _case_answers(contestants, data, case, request)
    return reason, list(outcomes)


@functools.cache
def _opened(
    request: EvaluationRequest,
) -> tuple[tuple[Contestant, ...], tuple[EvaluationData, ...]]:
    """Load models and lists of cases, once per process."""
    data = open_data(request.data, split=request.split, fold=request.fold, limit=request.limit)
    return tuple(make_contestants(request.contestants, device=request.device)), tuple(data)

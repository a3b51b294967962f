"""From a user's cases to an adapted model: measured by leaving patients out, written where it is better."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.adapt.budget import Budget, machine_speed
from clickvol.adapt.cases import CaseObjects, read_objects, stored_scan, synthetic_cases
from clickvol.adapt.intake import Intake, prepared_cases, read_source
from clickvol.adapt.scoring import (
    Comparison,
    Score,
    ScoredObject,
    as_content,
    chosen_objects,
    from_content,
    score_objects,
)
from clickvol.adapt.tuning import BATCH, Tuning, seconds_per_step, set_weights, tune
from clickvol.adapt.views import fitted_card
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.prepared import PreparedSet, RejectedCase
from clickvol.errors import ConfigError
from clickvol.files.atomic import write_text
from clickvol.files.lock import only_process_in
from clickvol.version import __version__
from clickvol.weights.card import BaseModelFacts, ModelCard, find_base, find_card, read_card
from clickvol.weights.difference import add_difference, difference_of
from clickvol.weights.load import LoadedModel, load_model
from clickvol.weights.safe_file import read_weights, write_weights

SHIPPED_BASES = ("promise3d-small", "promise3d-lesions")

MIN_CASES, MAX_CASES = 3, 50

MAX_BYTES = 2_600_000
"""Of the difference."""

_MAX_FOLDS = 3

# How far of the way from the base to the trained weights a model may lie. Half of it keeps more of what the
# base knows of other objects; on lung nodules it lost nothing there (docs/tutorials/adapt.md).
_SHARES = (0.5, 1.0)

# A shorter way is preferred where it costs at most so much mean Dice.
_WORTH_GOING = 0.01

# Each base is asked this many objects, one click each, when nobody chose one.
_OBJECTS_PER_BASE = 6

_WORK_SUFFIX = ".work"
_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptRequest:
    """What is asked for.

    Attributes:
        intake: the cases.
        output: path of the model without suffix; `.json` and `.safetensors` are written.
        base: id or path; None for the shipped one that is better before.
        minutes: that everything after reading the scans takes on this machine when it is idle.
        most_minutes: training ends early where a busy machine would take longer than this.
        seed: of samples, users and folds.
        rate: highest learning rate.
        force: write the model although it is not better.
        command: that asked for it, for the card.
    """

    intake: Intake
    output: Path
    base: str | None = None
    minutes: float = 10.0
    most_minutes: float = math.inf
    seed: int = 0
    rate: float = 1e-3
    force: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True)
class AdaptOutcome:
    """What came of it.

    Attributes:
        comparison: before and after.
        card: of the model that was written; None where it is not better.
        elsewhere: the same on synthetic tumours, which are none of the user's objects; None where nothing was
            written.
        base_id: what it began with.
        seconds: that it took, with reading.
    """

    comparison: Comparison
    card: Path | None
    elsewhere: Comparison | None
    base_id: str
    seconds: float


Report = Callable[[str, float], None]
"""Called with what is being done, and how much of everything is done, 0 to 1."""


def adapt(
    request: AdaptRequest,
    report: Report = lambda *_: None,
    on_rejected: Callable[[RejectedCase], None] = lambda _: None,
) -> AdaptOutcome:
    """Adapt a model; a run that was stopped goes on after the last part that was finished.

    Patients are dealt into up to three folds. For each fold the base is trained further on the others, and
    models half and all of the way to these weights are asked about it. The shortest way that is as good is gone
    with the average of the folds; its difference from the base is written, with the table, where it is better.

    Args:
        request: what is asked for.
        report: see `Report`.
        on_rejected: called with every case that cannot be used.

    Raises:
        ConfigError: for cases or a base that cannot be used.
        OutputError: when nothing can be written.
    """
    started = time.monotonic()
    output = _checked_output(request.output)
    source = read_source(request.intake)
    if source.num_listed is not None and request.intake.groups is None:
        _check_count(source.num_listed, source.num_listed)
    work = output.with_name(output.name + _WORK_SUFFIX)
    is_new = not work.exists()
    try:
        with only_process_in(work):
            report("reading scans", 0.0)
            prepared = prepared_cases(
                source, work, lambda _done, _total, last: _note_rejected(last, on_rejected)
            )
            cases = [read_objects(case, request.intake.modality) for case in prepared.cases]
            _check_count(len(cases), len({case.patient for case in cases}))
            state = _State.of(work, _key(request, prepared))
            outcome = _Run(request, prepared, cases, state, report).finish(output, started)
    except ConfigError:
        if is_new:  # what an earlier run left is worth minutes; this one's is not
            shutil.rmtree(work, ignore_errors=True)
        raise
    if outcome.card is not None:
        shutil.rmtree(work, ignore_errors=True)
    return outcome


def _note_rejected(last: object, on_rejected: Callable[[RejectedCase], None]) -> None:
    if isinstance(last, RejectedCase):
        on_rejected(last)


def _checked_output(path: Path) -> Path:
    output = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of the model in it, such as {path / 'mine'}")
    return output


def _check_count(num_scans: int, num_patients: int) -> None:
    if num_patients < MIN_CASES:
        raise ConfigError(
            f"the usable scans ({num_scans}) of {num_patients} patients are too few, since some are left out "
            f"to measure; give those of {MIN_CASES} patients at least"
        )
    if num_patients > MAX_CASES:
        raise ConfigError(
            f"there are cases of {num_patients} patients; adapt takes {MAX_CASES} at most, and so many are "
            "worth a training (clickvol train); give fewer, such as the rows of a manifest"
        )


def _key(request: AdaptRequest, prepared: PreparedSet) -> str:
    """Return a hash of what decides the result, so that another run does not go on with this one's parts."""
    facts = [prepared.content_hash, request.base, request.minutes, request.seed, request.rate, __version__]
    facts += [request.intake.modality, torch.get_num_threads()]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


class _State:
    """What is finished of a run: plain values in `state.json`, weights of the folds beside it."""

    def __init__(self, folder: Path, key: str, parts: dict[str, Any]) -> None:
        self._folder, self._key, self._parts = folder, key, parts

    @classmethod
    def of(cls, folder: Path, key: str) -> "_State":
        """Read what an earlier run left; nothing where it was another one."""
        try:
            content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            parts = content["parts"] if content["key"] == key else {}
        except (OSError, ValueError, KeyError, TypeError):
            parts = {}
        return cls(folder, key, parts)

    def part(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 # plain values of any shape
        """Return a part as plain values: of the earlier run, or made and kept now."""
        if name not in self._parts:
            self._parts[name] = make()
            write_text(self._folder / _STATE, json.dumps({"key": self._key, "parts": self._parts}))
        return self._parts[name]

    def weights(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return weights: of the earlier run, or made and kept now; float32."""
        path = self._folder / f"{name}.safetensors"

        def kept() -> str:
            return write_weights(make(), path, dtype=torch.float32)[0]

        return read_weights(path, sha256=self.part(name, kept))


class _Run:
    """One run, part by part."""

    def __init__(
        self,
        request: AdaptRequest,
        prepared: PreparedSet,
        cases: list[CaseObjects],
        state: _State,
        report: Report,
    ) -> None:
        self._request, self._prepared, self._cases, self._state = request, prepared, cases, state
        self._report = report
        self._started = time.monotonic()
        base = request.base or state.part("base", self._better_base)
        self._base_path = find_card(base)
        self._base = load_model(base, device="cpu")
        side = self._patch_side()
        self._card = fitted_card(self._base.card, cases, side)
        self._fresh = {n: p.detach().clone() for n, p in self._base.network.state_dict().items()}
        self._scans = {case.case_id: stored_scan(case, self._fitted()) for case in cases}
        seconds = state.part("step_seconds", self._step_seconds)
        num_objects = sum(len(case.longest_mm) for case in cases)
        num_patients = len({case.patient for case in cases})
        folds = min(_MAX_FOLDS, num_patients)
        self._budget = Budget.of(request.minutes * 60, float(seconds), folds, num_objects, num_patients)
        self._objects = chosen_objects(cases, self._budget.num_objects)

    def _patch_side(self) -> int:
        shape = getattr(self._base.network.config, "patch_shape_dhw", (0, 0, 0))
        return max(1, int(shape[0]))

    def _better_base(self) -> str:
        """Return the shipped base that is better at a few of the objects, one click each."""
        self._report("comparing the shipped models", 0.01)
        objects = chosen_objects(self._cases, _OBJECTS_PER_BASE)
        means = {}
        for base in SHIPPED_BASES:
            scores = score_objects(load_model(base, device="cpu"), objects, self._request.seed, clicks=(1,))
            means[base] = sum(score.dice[0] for score in scores)
        return max(SHIPPED_BASES, key=lambda base: means[base])

    def _fitted(self) -> LoadedModel:
        """Return the base with the views of these cases; all share one network."""
        return replace(self._base, card=self._card)

    def _step_seconds(self) -> float:
        self._report("measuring the speed of this machine", 0.04)
        store = self._store(self._cases)
        return machine_speed(self._base.card.sha256, lambda: seconds_per_step(self._fitted(), store, 0))

    def _store(self, cases: Sequence[CaseObjects]) -> ScanStore:
        return ScanStore.of([self._scans[case.case_id] for case in cases], torch.device("cpu"))

    def finish(self, output: Path, started: float) -> AdaptOutcome:
        """Measure, train, measure, and write what is better."""
        budget, request = self._budget, self._request
        before = from_content(self._state.part("before", self._before))
        folds = _folds(self._cases, budget.num_folds, request.seed)
        after: list[list[Score]] = [[] for _ in _SHARES]
        total: dict[str, Tensor] = {}
        for number, fold in enumerate(folds):
            weights = self._state.weights(f"fold-{number}", partial(self._tuned, number, fold))
            scores = self._state.part(f"after-{number}", partial(self._after, number, fold, weights))
            for known, new in zip(after, scores, strict=True):
                known += from_content(new)
            for name, value in weights.items():
                total[name] = total[name] + value if name in total else value
        share, comparison = _shortest([Comparison.of(before, scores) for scores in after])
        card, elsewhere = None, None
        if comparison.is_better or request.force:
            average = {name: torch.lerp(self._fresh[name], total[name] / len(folds), share) for name in total}
            elsewhere = self._elsewhere(average)
            card = self._write(output, average, comparison, elsewhere, share)
        self._report("done", 1.0)
        return AdaptOutcome(comparison, card, elsewhere, self._base.card.id, time.monotonic() - started)

    def _elsewhere(self, weights: dict[str, Tensor]) -> Comparison:
        """Score base and adapted model at synthetic tumours: what was lost of other objects."""
        self._report("measuring what was lost elsewhere", 1.0)
        cases = synthetic_cases()
        objects = chosen_objects(cases, len(cases))

        def scores(model: LoadedModel) -> list[Score]:
            return score_objects(model, objects, self._request.seed, clicks=(1,))

        before = scores(self._base)
        set_weights(self._base, add_difference(self._fresh, self._difference(weights)))
        after = scores(self._fitted())
        set_weights(self._base, self._fresh)
        return Comparison.of(before, after)

    def _before(self) -> list[dict[str, Any]]:
        def on_object(done: int) -> None:
            self._report("measuring the base", self._budget.done_before(done))

        return as_content(score_objects(self._base, self._objects, self._request.seed, on_object=on_object))

    def _tuned(self, number: int, left_out: frozenset[str]) -> dict[str, Tensor]:
        """Return the weights after training on all patients but those that are left out."""
        budget = self._budget
        set_weights(self._base, self._fresh)
        store = self._store([case for case in self._cases if case.patient not in left_out])
        tuning = Tuning(num_steps=budget.num_steps, rate=self._request.rate, seed=self._request.seed + number)

        def on_step(done: int) -> None:
            text = f"training, part {number + 1} of {budget.num_folds}"
            self._report(text, budget.done_training(number, done))

        share = budget.done_training(number, budget.num_steps)
        deadline = self._started + 60 * self._request.most_minutes * share
        return tune(self._fitted(), store, tuning, deadline=deadline, on_step=on_step)

    def _after(
        self, number: int, left_out: frozenset[str], weights: dict[str, Tensor]
    ) -> list[list[dict[str, Any]]]:
        """Score the objects of the patients that were left out, with models that have not seen them, by share.

        What is scored is what would be written: the weights go through the difference of a few MB.
        """
        whole = add_difference(self._fresh, self._difference(weights))
        objects: list[ScoredObject] = [o for o in self._objects if o.case.patient in left_out]
        scores = []
        for place, share in enumerate(_SHARES):
            set_weights(self._base, {n: torch.lerp(self._fresh[n], value, share) for n, value in whole.items()})

            def on_object(done: int, place: int = place) -> None:
                text = f"measuring part {number + 1} of {self._budget.num_folds}"
                part = (place + done / max(1, len(objects))) / len(_SHARES)
                self._report(text, self._budget.done_after(number, part))

            scored = score_objects(self._fitted(), objects, self._request.seed, on_object=on_object)
            scores.append(as_content(scored))
        set_weights(self._base, self._fresh)
        return scores

    def _difference(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        rounded = difference_of(self._fresh, weights, MAX_BYTES)
        return {name: value.half().float() for name, value in rounded.items()}

    def _write(
        self,
        output: Path,
        average: dict[str, Tensor],
        comparison: Comparison,
        elsewhere: Comparison,
        share: float,
    ) -> Path:
        """Write weights and card; the card last."""
        base = self._base.card
        root_path = find_base(base, self._base_path) or self._base_path
        root = read_card(root_path)
        root_state = self._fresh if root_path == self._base_path else load_model(root_path).network.state_dict()
        difference = difference_of(root_state, self._fresh | average, MAX_BYTES)
        weights = output.with_suffix(output.suffix + ".safetensors")
        sha256, size = write_weights(difference, weights, dtype=torch.float16)
        is_shipped = root.id in SHIPPED_BASES
        # The prepared set has no name of its own where the cases came as a list.
        name = self._request.intake.source.resolve().stem
        num_patients = len({case.patient for case in self._cases})
        card = ModelCard(
            **base.model_dump(
                include={"method", "network", "licence", "num_parameters"},
            ),
            id=output.name,
            title=f"{base.id} adapted to {name}",
            base=BaseModelFacts(
                id=root.id,
                sha256=root.sha256,
                card=None if is_shipped else os.path.relpath(root_path, output.parent),
            ),
            fields_of_view=self._card.fields_of_view,
            intensity=self._card.intensity,
            modalities=self._card.modalities,
            training_data=[
                f"{len(self._cases)} scans of {num_patients} patients given by the user, in "
                f"{name} (data sha256 {self._prepared.content_hash[:12]})",
                *base.training_data,
            ],
            training_command=self._request.command,
            scores=[*comparison.rows(), elsewhere.row_elsewhere()],
            notes=self._notes(comparison, elsewhere, share),
            dtype="float16",
            bytes=size,
            sha256=sha256,
            weights_file=weights.name,
            clickvol_version=__version__,
        )
        path = output.with_suffix(output.suffix + ".json")
        write_text(path, card.model_dump_json(indent=2) + "\n")
        return path

    def _notes(self, comparison: Comparison, elsewhere: Comparison, share: float) -> list[str]:
        """Say how it was made, what it lost, and what it is not."""
        return [
            f"Adapted: average of {self._budget.num_folds} trainings of {self._budget.num_steps} steps of "
            f"{BATCH} patches, seed {self._request.seed}, rate {self._request.rate:g}, "
            f"{torch.get_num_threads()} threads; each left out the patients that it was scored on.",
            f"The weights lie at {share:g} of the way from the base: of {' and '.join(map(str, _SHARES))} the "
            "least that is as good by the table.",
            f"{elsewhere.loss_elsewhere()} Take {self._base.card.id} for what is not like these cases.",
            *([] if comparison.is_better else ["Not better than the base by the table; written by --force."]),
            "Research use only, not a medical device.",
        ]


def _shortest(comparisons: Sequence[Comparison]) -> tuple[float, Comparison]:
    """Return the least share of the way whose mean over all numbers of clicks is as good as the best."""
    means = [known.mean_after for known in comparisons]
    return next(
        (share, known)
        for share, known, mean in zip(_SHARES, comparisons, means, strict=True)
        if mean >= max(means) - _WORTH_GOING
    )


def _folds(cases: Sequence[CaseObjects], count: int, seed: int) -> list[frozenset[str]]:
    """Deal patients into folds with about as many objects; the same patients and seed, the same folds."""
    sizes: dict[str, int] = {}
    for case in cases:
        sizes[case.patient] = sizes.get(case.patient, 0) + len(case.longest_mm)
    order = sorted(
        sizes, key=lambda patient: (-sizes[patient], hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    )
    folds: list[set[str]] = [set() for _ in range(count)]
    for patient in order:
        smallest = min(folds, key=lambda fold: (len(fold), sum(sizes[p] for p in fold)))
        smallest.add(patient)
    return [frozenset(fold) for fold in folds]

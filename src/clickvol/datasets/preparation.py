"""From a public data set as it comes to a prepared one: checked, resampled, measured and split."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from clickvol.datasets.case_index import write_index
from clickvol.datasets.case_preparation import (
    CaseOptions,
    prepare_case,
    read_foreground_sample,
    row_path,
)
from clickvol.datasets.fingerprint import IntensityConstants, fingerprint
from clickvol.datasets.prepared import (
    CASES_NAME,
    MANIFEST_NAME,
    SPLITS_NAME,
    CaseModality,
    CaseSet,
    CaseT,
    LabelledCase,
    PreparedSet,
    RejectedCase,
    Triple,
    is_prepared_set,
    read_prepared_set,
)
from clickvol.datasets.published import PublishedConstants, published_names, published_split, read_published
from clickvol.datasets.sources import CaseFiles, Listing, SourceKind, list_source
from clickvol.datasets.splits import (
    PART_NAMES,
    Split,
    check_splits,
    groups_by_pattern,
    make_split,
    read_groups,
    read_splits,
    splits_json,
)
from clickvol.errors import ConfigError
from clickvol.files.atomic import make_folder, remove_abandoned, write_text
from clickvol.files.lock import only_process_in
from clickvol.parallel.rows import RowFailure, check_workers, run_rows
from clickvol.version import __version__

Outcome = LabelledCase | RejectedCase
Report = Callable[[int, int, Outcome], None]
"""Called with the number of cases that are done, the number of all, and the last one."""


@dataclass(frozen=True, kw_only=True)
class PreparationPlan:
    """What to prepare and how.

    Attributes:
        source: folder of the data set, or where the cases of `listing` come from.
        listing: its cases; None for what `source` holds.
        destination: folder of the prepared set; may hold an earlier, unfinished run.
        tumour_label: value of the object; "all" for every value above 0; None for the published or known one,
            else every value above 0 ("folder" then refuses labels with several).
        modality: of all scans; None for what the data set or its values say.
        spacing_dhw_mm: voxels to resample to, or "native"; None for the published ones, else native.
        constants: name of published constants; None for the fingerprint.
        groups: CSV with the columns case and group; None for every case by itself.
        patients: in place of that file, a regular expression for the group in a case's id; "" for none.
        splits: file in nnU-Net's form; None for the published split where the whole data set is there (of LiTS
            and KiTS with the published numbers of cases), else one that is drawn.
        organs: the organ mask of a case, relative to the folder of its scan, with {case_id} for its id, as in
            "../organs/{case_id}.nii.gz"; "" for none.
        force: make finished cases again, and replace a prepared set of another source.
    """

    kind: SourceKind
    source: Path
    destination: Path
    tumour_label: int | Literal["all"] | None = None
    modality: CaseModality | None = None
    spacing_dhw_mm: Triple | Literal["native"] | None = None
    constants: str | None = None
    groups: Path | None = None
    patients: str = ""
    splits: Path | None = None
    seed: int = 0
    workers: int = 1
    scheduler: str | None = None
    volume_index: int | None = None
    organs: str = ""
    force: bool = False
    listing: Listing | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers, self.scheduler)
        if self.constants is not None and self.modality not in (None, "CT"):
            raise ConfigError(
                f"the constants {self.constants} are Hounsfield units of CT; leave out --modality "
                f"{self.modality}"
            )
        if self.kind == "npz" and (self.tumour_label, self.constants) != (None, None):
            raise ConfigError(
                "in .npz files every class is a case and no value is in HU; leave --label and --constants out"
            )
        if self.groups is not None and self.patients:
            raise ConfigError("--groups and --patients say the same; leave one out")
        spacing = self.spacing_dhw_mm
        if isinstance(spacing, tuple) and not all(0 < side < float("inf") for side in spacing):
            raise ConfigError(f"the spacing {spacing} is not three lengths above 0 mm; correct --spacing")
        if self.organs:
            _check_organs(self.organs)
        if self.destination.resolve() == self.source.resolve():
            raise ConfigError(
                f"{self.destination} is the data set itself; choose another folder for the prepared one"
            )


def _check_organs(pattern: str) -> None:
    try:
        has_case = pattern.format(case_id="a") != pattern.format(case_id="b")
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"the organ path {pattern!r} has a field other than {{case_id}}; correct it"
        ) from error
    if not has_case:
        raise ConfigError(f"the organ path {pattern!r} is the same for every scan; write {{case_id}} into it")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is read before any scan is, so that mistakes show at once."""

    listing: Listing
    published: PublishedConstants | None
    group_of_case: dict[str, str]
    folds: tuple[Split, ...] | None
    options: CaseOptions


def prepare_data_set(plan: PreparationPlan, report: Report = lambda *_: None) -> PreparedSet:
    """Prepare a data set; a run that was stopped goes on where it was. Returns the manifest as written.

    ConfigError for a source, file or setting that cannot be used, or when no case can; OutputError when the
    destination cannot be written.
    """
    inputs = _read_inputs(plan)
    with opened_set(plan.destination) as cases_folder:
        _refuse_other_set(plan, inputs.listing)
        work = partial(prepare_case, folder=cases_folder, options=inputs.options, reuse=not plan.force)
        listed = (inputs.listing.cases, inputs.listing.rejected)
        manifest = _manifest(plan, inputs, *prepare_all(work, *listed, report, plan.workers, plan.scheduler))
        (plan.destination / MANIFEST_NAME).unlink(missing_ok=True)
        rows = [row_path(cases_folder, case.case_id) for case in manifest.cases]
        write_index(rows, (case.image.sha256 for case in manifest.cases), plan.destination)
        write_set(manifest, plan.destination / MANIFEST_NAME)
    return manifest


@contextmanager
def opened_set(destination: Path) -> Iterator[Path]:
    """Hold the folder of a set for the length of a block, without what killed writers left; lend `cases/`."""
    with only_process_in(destination):
        cases = destination / CASES_NAME
        make_folder(cases)
        for folder in (destination, cases):
            remove_abandoned(folder)
        yield cases


def prepare_all(
    work: Callable[[CaseFiles], CaseT | RejectedCase],
    files: Sequence[CaseFiles],
    rejected: Sequence[RejectedCase],
    report: Callable[[int, int, Any], None],
    workers: int = 1,
    scheduler: str | None = None,
) -> tuple[list[CaseT], list[RejectedCase]]:
    """Do every case; return those that can be used, in order, and the others; ConfigError for none."""
    total = len(rejected) + len(files)
    for number, lacking in enumerate(rejected, start=1):
        report(number, total, lacking)
    outcomes: dict[str, CaseT | RejectedCase] = {}

    def keep(case: CaseFiles, outcome: CaseT | RejectedCase | RowFailure) -> None:
        if isinstance(outcome, RowFailure):
            outcome = RejectedCase(case_id=case.case_id, reason=outcome.reason)
        outcomes[case.case_id] = outcome
        report(len(rejected) + len(outcomes), total, outcome)

    run_rows(work, files, keep, workers=workers, scheduler=scheduler)
    ordered = [*rejected, *(outcomes[case.case_id] for case in files)]
    made = [case for case in ordered if not isinstance(case, RejectedCase)]
    refused = [case for case in ordered if isinstance(case, RejectedCase)]
    if not made:
        first = refused[0]
        raise ConfigError(
            f"no case can be used; {len(refused)} were rejected, the first, {first.case_id}: {first.reason}"
        )
    return made, refused


def write_set(manifest: CaseSet[Any], path: Path) -> None:
    """Write the splits and then the manifest of a set: from then on the set is one."""
    write_text(path.with_name(SPLITS_NAME), splits_json(manifest.splits))
    write_text(path, manifest.model_dump_json(indent=1) + "\n")


def content_hash(facts: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the SHA-256 of what a model sees of a set."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read_inputs(plan: PreparationPlan) -> _Inputs:
    published = None if plan.constants is None else read_published(plan.constants)
    listing = plan.listing or list_source(plan.kind, plan.source, volume_index=plan.volume_index)
    options = _options(plan, listing, published)
    groups = {case.case_id: case.case_id for case in listing.rejected}
    groups |= {case.case_id: case.group or case.case_id for case in listing.cases}
    if plan.groups is not None:
        groups = read_groups(plan.groups, list(groups))
    elif plan.patients:
        groups = groups_by_pattern(plan.patients, list(groups))
    folds = None
    if plan.splits is not None:
        folds = read_splits(plan.splits)
        check_splits(folds, groups, plan.splits)
    return _Inputs(listing, published, groups, folds, options)


def _options(plan: PreparationPlan, listing: Listing, published: PublishedConstants | None) -> CaseOptions:
    """Return what is asked of every case: what the user asks for, else what is published or known.

    Raises:
        ConfigError: when that contradicts what the data set says of itself.
    """
    if listing.published is not None and plan.constants not in (None, listing.published):
        raise ConfigError(
            f"{listing.name} has the published constants {listing.published}, not {plan.constants}; give "
            f"--constants {listing.published}, or none"
        )
    if published is not None:
        _refuse_another_organ(plan, listing, published)
    known = published
    if known is None and listing.published is not None:
        known = read_published(listing.published)
    label = plan.tumour_label
    if label is None and known is not None:
        label = known.tumour_label
    if isinstance(label, int) and listing.labels and label not in listing.labels:
        raise ConfigError(
            f"no label of {listing.name} has the value {label}; they are {listing.label_names}; choose one "
            "with --label"
        )
    if plan.kind == "folder" and label is None and len(listing.labels) > 1:
        raise ConfigError(
            f"the labels of {listing.name} are {listing.label_names}; say which is the tumour with --label N, "
            "or --label all"
        )
    spacing = plan.spacing_dhw_mm
    if spacing is None and published is not None:
        spacing = published.spacing_dhw_mm
    return CaseOptions(
        tumour_label=label if isinstance(label, int) else None,
        refuse_several_labels=plan.kind == "folder" and label is None,
        spacing_dhw_mm=spacing if isinstance(spacing, tuple) else None,
        volume_index=plan.volume_index,
        organs=plan.organs,
    )


def _refuse_another_organ(plan: PreparationPlan, listing: Listing, published: PublishedConstants) -> None:
    """Refuse published constants where the labels name the organ of others, and not theirs."""
    names = " ".join(listing.labels.values()).lower()
    organs = {read_published(name).organ for name in published_names()}
    if published.organ not in names and any(organ in names for organ in organs):
        raise ConfigError(
            f"the constants {plan.constants} are of the {published.organ}, but the labels of {listing.name} "
            f"are {listing.label_names}; leave --constants out, or give those of that organ"
        )


def _refuse_other_set(plan: PreparationPlan, listing: Listing) -> None:
    if plan.force or not is_prepared_set(plan.destination):
        return
    there = read_prepared_set(plan.destination)
    if (there.name, there.kind) != (listing.name, plan.kind):
        raise ConfigError(
            f"{plan.destination} holds the prepared set {there.name} ({there.kind}), not {listing.name} "
            f"({plan.kind}); choose another folder, or --force to replace it"
        )


def _manifest(
    plan: PreparationPlan, inputs: _Inputs, made: Sequence[LabelledCase], rejected: Sequence[RejectedCase]
) -> PreparedSet:
    listing = inputs.listing
    modality = plan.modality or ("CT" if inputs.published is not None else listing.modality)
    cases = [
        case.model_copy(
            update={"group": inputs.group_of_case[case.case_id], "modality": modality or case.modality}
        )
        for case in made
    ]
    cases, copies = copies_together(cases)
    folds = _folds(plan, inputs, cases, copies)
    intensity = _intensity(plan, inputs.published, cases, folds[0])
    target: Triple | Literal["native"] = inputs.options.spacing_dhw_mm or "native"
    return PreparedSet(
        name=listing.name,
        kind=plan.kind,
        constants=plan.constants,
        target_spacing_dhw_mm=target,
        seed=plan.seed,
        intensity=intensity,
        splits=folds,
        cases=tuple(cases),
        rejected=tuple(rejected),
        notes=(*copies, *_notes(plan, inputs, cases, folds)),
        clickvol_version=__version__,
        content_hash=_hash(cases, folds, intensity, target),
    )


def copies_together(cases: Sequence[CaseT]) -> tuple[list[CaseT], list[str]]:
    """Put cases with the same image, whatever their files are called, into one group; return a note each."""
    copies_by_hash: dict[str, list[CaseT]] = defaultdict(list)
    for case in cases:
        copies_by_hash[case.image.sha256].append(case)
    group_of = {case.group: case.group for case in cases}

    def root(group: str) -> str:
        while group_of[group] != group:
            group = group_of[group]
        return group

    notes = []
    for copies in copies_by_hash.values():
        if len({case.source_image.path for case in copies}) < 2:
            continue
        notes.append(f"{', '.join(case.case_id for case in copies)} have the same image and stay in one part.")
        joined = {root(case.group) for case in copies}
        group_of |= dict.fromkeys(joined, min(joined))
    return [case.model_copy(update={"group": root(case.group)}) for case in cases], notes


def _folds(
    plan: PreparationPlan, inputs: _Inputs, cases: Sequence[LabelledCase], copies: Sequence[str]
) -> tuple[Split, ...]:
    """Return the splits of the usable cases."""
    usable = {case.case_id: case.group for case in cases}
    if inputs.folds is None or plan.splits is None:
        name = plan.constants or inputs.listing.published
        known = None if name is None else published_split(name, inputs.group_of_case | usable, plan.seed)
        return (make_split(usable, plan.seed) if known is None else known.only(set(usable)),)
    try:
        check_splits(inputs.folds, inputs.group_of_case | usable, plan.splits)
    except ConfigError as error:  # they were good before scans were compared
        raise ConfigError(f"{error}. {' '.join(copies)}") from error
    folds = tuple(fold.only(set(usable)) for fold in inputs.folds)
    for number, fold in enumerate(folds):
        if not fold.train:
            raise ConfigError(
                f"fold {number} has no usable case to train on; correct the cases or give other splits"
            )
    return folds


def _intensity(
    plan: PreparationPlan,
    published: PublishedConstants | None,
    cases: Sequence[LabelledCase],
    fold: Split,
) -> dict[CaseModality, IntensityConstants]:
    """Return the constants of each modality: published ones, or of the training part of the first fold."""
    if plan.constants is not None and published is not None:
        return {"CT": IntensityConstants.of_published(plan.constants, published)}
    constants: dict[CaseModality, IntensityConstants] = {}
    folder = plan.destination / CASES_NAME
    trained = set(fold.train)
    for modality in sorted({case.modality for case in cases}):
        training = [c.case_id for c in cases if c.modality == modality and c.case_id in trained]
        if not training:
            raise ConfigError(
                f"no {modality} scan of the set is in the training part, so there is no fingerprint for "
                "it; give --modality if a scan was taken for another, or other splits"
            )
        constants[modality] = fingerprint((read_foreground_sample(folder, c) for c in training), len(training))
    return constants


def _notes(
    plan: PreparationPlan, inputs: _Inputs, cases: Sequence[LabelledCase], folds: Sequence[Split]
) -> list[str]:
    notes = []
    if (plan.tumour_label, inputs.options.tumour_label) == (None, None) and len(inputs.listing.labels) > 1:
        names = inputs.listing.label_names
        notes.append(f"The labels hold {names}; without --label all of them are the object.")
    modalities = Counter(case.modality for case in cases)
    if len(modalities) > 1:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(modalities.items()))
        notes.append(f"By their values the scans are {counts}; --modality says what they are.")
    for number, fold in enumerate(folds):
        named = {case for name in PART_NAMES for case in fold.part(name)}
        unused = sum(case.case_id not in named for case in cases)
        if unused:
            notes.append(f"{unused} usable cases are in no part of fold {number}.")
    return notes


def _hash(
    cases: Sequence[LabelledCase],
    folds: Sequence[Split],
    intensity: dict[CaseModality, IntensityConstants],
    target: Triple | Literal["native"],
) -> str:
    """Return the SHA-256 of what a model sees of the set: arrays, grids, splits and constants."""
    seen = {"group", "modality", "tumour_label", "shape_dhw", "affine_ras_mm"}
    facts: dict[str, Any] = {
        "cases": [
            case.model_dump(mode="json", include=seen)
            | {"id": case.case_id, "image_sha256": case.image.sha256, "label_sha256": case.label.sha256}
            for case in cases
        ],
        "splits": [fold.model_dump(mode="json") for fold in folds],
        "intensity": {name: known.model_dump() for name, known in sorted(intensity.items())},
        "target_spacing_dhw_mm": target,
    }
    return content_hash(facts)

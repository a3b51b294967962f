"""What an evaluation is asked to do, and the runs that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from clickvol.errors import ConfigError
from clickvol.evaluation.asking import RunPlan
from clickvol.evaluation.cases import EvaluationData, OrganMaskChoice
from clickvol.evaluation.contestants import Contestant
from clickvol.evaluation.protocol import (
    NO_CLICK,
    ROBUSTNESS_PLACEMENTS,
    Placement,
    Protocol,
)
from clickvol.evaluation.records import RunKey
from clickvol.version import __version__

MASKS_NAME = "masks"

# The user whose last masks are kept, for pictures.
_KEPT_SEED = 0

# First clicks that have nothing random: all users would do the same.
_CERTAIN_PLACEMENTS: tuple[Placement, ...] = ("centre", "box")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """One evaluation.

    Attributes:
        contestants: words, see `evaluation.entries`.
        data: words, see `evaluation.cases`.
        folder: of the report; made where it is missing.
        protocol: the rules.
        split: part of prepared data sets, "all" for others.
        fold: of their splits.
        limit: only so many first cases of each data set; None for all.
        reference: name of the contestant that the others are compared with; None for no comparison.
        robustness: also click once at the centre, well inside, near the edge and beside the object.
        organ_mask: what is shown to contestants that look at an organ mask.
        device: where models compute.
        workers: processes; each loads all models.

    Raises:
        ConfigError: on construction, for an organ mask that is none of the choices.
    """

    contestants: tuple[str, ...]
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

    def __post_init__(self) -> None:
        if self.organ_mask not in get_args(OrganMaskChoice):
            raise ConfigError(
                f"there is no organ mask {self.organ_mask!r} to evaluate with; choose one of "
                f"{', '.join(get_args(OrganMaskChoice))}"
            )


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """A case and the runs on it.

    Attributes:
        data_index, case_index: where it stands in the list of data sets.
        runs: with the index of the contestant.
    """

    data_index: int
    case_index: int
    runs: tuple[tuple[int, RunPlan], ...]


def plan_runs(
    request: EvaluationRequest, contestants: Sequence[Contestant], data: Sequence[EvaluationData]
) -> list[PlannedCase]:
    """Return every case with its runs, in the order in which they are done."""
    return [
        PlannedCase(
            data_index,
            case_index,
            tuple(
                (index, run)
                for index, contestant in enumerate(contestants)
                for run in _runs(request, contestant, one_set.name, case.case_id)
            ),
        )
        for data_index, one_set in enumerate(data)
        for case_index, case in enumerate(one_set.cases)
    ]


def settings_of(
    request: EvaluationRequest,
    contestants: Sequence[Contestant],
    data: Sequence[EvaluationData],
    device: str,
) -> dict[str, Any]:
    """Return what decides the results, by the words a person knows it by.

    Organ masks are named where there are any, so that evaluations of versions that knew none go on.
    """
    shown = {} if request.organ_mask == "none" else {"organ_mask": request.organ_mask}
    return shown | {
        "protocol": request.protocol.settings(),
        "robustness": request.robustness,
        "models": {contestant.name: contestant.fingerprint for contestant in contestants},
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


def mask_file(folder: Path, key: RunKey) -> Path:
    """Return where the mask of a run is kept: masks/MODEL/DATA/CASE.nii.gz."""
    model, data, case = (_file_name(text) for text in (key.model, key.data, key.case_id))
    return folder / MASKS_NAME / model / data / f"{case}.nii.gz"


def _runs(request: EvaluationRequest, contestant: Contestant, data: str, case_id: str) -> list[RunPlan]:
    protocol = request.protocol
    if not contestant.takes_clicks:
        key = RunKey(contestant.name, data, case_id, _KEPT_SEED, NO_CLICK)
        file = mask_file(request.folder, key)
        return [RunPlan(key=key, placement=None, num_clicks=(0,), mask_file=file)]
    ways: dict[Placement, tuple[int, ...]] = {protocol.first_click: protocol.num_clicks}
    if request.robustness:
        ways = dict.fromkeys(ROBUSTNESS_PLACEMENTS, (1,)) | ways
        ways = {protocol.first_click: ways.pop(protocol.first_click)} | ways
    runs = []
    for placement, num_clicks in ways.items():
        certain = placement in _CERTAIN_PLACEMENTS and (protocol.next_clicks == "error" or num_clicks == (1,))
        for seed in range(1 if certain else protocol.seeds):
            key = RunKey(contestant.name, data, case_id, seed, placement)
            kept = placement == protocol.first_click and seed == _KEPT_SEED
            runs.append(
                RunPlan(
                    key=key,
                    placement=placement,
                    num_clicks=num_clicks,
                    mask_file=mask_file(request.folder, key) if kept else None,
                )
            )
    return runs


def _file_name(text: str) -> str:
    """Return a name of its own for every text, without what a file's name may not hold."""
    name = quote(text, safe=" +")
    return name.replace(".", "%2E") if set(name) == {"."} else name

"""One simulated user asks one method about one scan: the clicks, the masks, and their scores."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.errors import ClickError, ClickvolError, ConfigError
from clickvol.evaluation.masks_of_clicks import MissingMaskError
from clickvol.evaluation.methods import AnswerClicks, Method, Scan
from clickvol.evaluation.protocol import Placement, Protocol
from clickvol.evaluation.records import Row, RunKey
from clickvol.evaluation.simulated_user import BoxPrompt, PlacedClick, SimulatedUser, Truth
from clickvol.io.formats import write_mask
from clickvol.io.pictures import Picture, write_mask_picture
from clickvol.io.volume import Mask
from clickvol.metrics.scores import score_masks, score_pictures
from clickvol.prompts.click import Click

ORGAN_ORACLE = "organ and tumour as one mask from the label: an oracle"
"""What an audit says of a method that was shown the organ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of an evaluation: numbers of clicks that are scored rise; a file keeps the last mask."""

    key: RunKey
    placement: Placement | None
    num_clicks: tuple[int, ...]
    mask_file: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationCase:
    """A case as the examiner has it: the scan that methods see, maybe with an organ mask, and the truth.

    The oracle is what the audit says of that mask where it comes from the label.
    """

    scan: Scan
    truth: Truth
    group: str
    modality: str
    scan_with_organ: Scan | None = None
    oracle: str | None = None

    def scan_for(self, method: Method) -> Scan:
        """Return what a method sees."""
        return self.scan_with_organ if self.scan_with_organ and method.takes_organ_mask else self.scan


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What came of a run: rows of the table, one per number of clicks, and lines of the audit."""

    key: RunKey
    rows: tuple[Row, ...]
    clicks: tuple[Row, ...]


@dataclass(slots=True)
class RunState:
    """Where a run is: the last answer (D, H, W), and why it counts as an empty mask, where it does."""

    answer_clicks: AnswerClicks
    mask: NDArray[np.uint8]
    oracle: str | None
    seconds: float = 0.0
    failure: str | None = None
    clicks: list[Click] = field(default_factory=list)
    audits: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def run_case(method: Method, case: EvaluationCase, run: Run, protocol: Protocol) -> RunOutcome:
    """Let one user question one method about one scan.

    A method that fails, or answers with an empty mask, or too late, has the scores of an empty mask, and the
    user goes on from there. A user who sees nothing wrong stops: later numbers of clicks repeat the scores, at
    no time.

    Raises:
        ConfigError: when the method cannot be asked at all.
        MissingMaskError: when another program has not answered yet.
        OutputError: when the mask cannot be kept.
    """
    scan, grid = case.scan_for(method), case.scan.volume.grid
    empty = np.zeros(grid.shape_dhw, dtype=np.uint8)
    state = RunState(method.open_scan(scan), empty, None if scan.organ is None else case.oracle)
    if run.placement is None:
        _answer(state, None, protocol)
        state.rows.append(_row(case, run.key, 0, state, protocol))
    else:
        _click_and_score(state, case, run, run.placement, protocol)
    if run.mask_file is not None:
        run.mask_file.parent.mkdir(parents=True, exist_ok=True)
        if run.mask_file.suffix == ".png":
            write_mask_picture(state.mask[0] > 0, run.mask_file)
        else:
            write_mask(Mask(state.mask, grid), run.mask_file)
    return RunOutcome(run.key, tuple(state.rows), tuple(state.audits))


def _click_and_score(
    state: RunState, case: EvaluationCase, run: Run, placement: Placement, protocol: Protocol
) -> None:
    """Click up to the largest number, and score the numbers that are asked for."""
    key = run.key
    user = SimulatedUser(
        case.truth,
        case.scan.volume.grid,
        case_id=key.case_id,
        seed=key.seed,
        placement=placement,
        next_clicks=protocol.next_clicks,
    )
    for number in range(1, run.num_clicks[-1] + 1):
        is_scored = number in run.num_clicks
        try:
            placed = user.first_click() if number == 1 else user.next_click(state.mask)
        except ClickError as error:
            # No voxel of this scan is where the first click should be: there is nothing to answer.
            state.failure = str(error)
            state.rows += [_row(case, key, n, state, protocol) for n in run.num_clicks]
            return
        if placed is None:
            state.seconds = 0.0
        else:
            state.clicks.append(placed.click)
            state.audits.append(_audit(placed, number, key, case.truth, state.oracle))
            if is_scored or (protocol.next_clicks == "error" and placement != "points"):
                _answer(state, user.box, protocol)
        if is_scored:
            state.rows.append(_row(case, key, number, state, protocol))


def _answer(state: RunState, box: BoxPrompt | None, protocol: Protocol) -> None:
    """Ask, and put the answer, or what is wrong with it, into the state."""
    state.mask = np.zeros_like(state.mask)
    state.seconds = 0.0
    try:
        answer = state.answer_clicks(tuple(state.clicks))
    except (ConfigError, MissingMaskError):
        raise
    except (ClickvolError, MemoryError, torch.OutOfMemoryError) as error:
        state.failure = " ".join(str(error).split()) or type(error).__name__
        return
    state.seconds = answer.seconds
    state.failure = None
    if answer.mask.shape != state.mask.shape:
        state.failure = f"a mask of shape {answer.mask.shape} for a scan of {state.mask.shape}"
        return
    limit = protocol.time_limit_seconds
    if limit is not None and answer.seconds > limit:
        state.failure = f"took {answer.seconds:.1f} s, the protocol allows {limit:g} s"
        return
    mask = (answer.mask > 0).astype(np.uint8)
    if box is not None:
        mask = box.cut(mask, state.clicks)
    if not mask.any():
        state.failure = "the mask is empty"
    state.mask = mask


def _row(case: EvaluationCase, key: RunKey, number: int, state: RunState, protocol: Protocol) -> Row:
    if isinstance(case.scan.volume, Picture):
        scores = score_pictures(state.mask, case.truth.array)
    else:
        spacing = case.scan.volume.grid.spacing_dhw_mm
        scores = score_masks(state.mask, case.truth.array, spacing, protocol.nsd_tolerances_mm)
    return {
        **key._asdict(),
        "group": case.group,
        "modality": case.modality,
        "num_clicks": number,
        **scores,
        "seconds": state.seconds,
        "failure": state.failure,
    }


def _audit(placed: PlacedClick, number: int, key: RunKey, truth: Truth, oracle: str | None) -> Row:
    return {
        **key._asdict(),
        "click": number,
        "voxel_ijk": placed.voxel_ijk,
        "world_ras_mm": placed.world_ras_mm,
        "foreground": placed.click.foreground,
        "drawn_from": placed.drawn_from,
        "region_voxels": placed.region_voxels,
        "label_sha256": truth.sha256,
        "oracle": oracle,
    }

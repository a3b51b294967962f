"""One user asks one contestant about one scan: the clicks, the masks, and their scores."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.errors import ClickError, ClickvolError, ConfigError
from clickvol.evaluation.box_prompt import BoxPrompt
from clickvol.evaluation.contestants import Contestant, OpenedScan, Scan
from clickvol.evaluation.protocol import Placement, Protocol
from clickvol.evaluation.records import Row, RunKey
from clickvol.evaluation.result_log import ClickAudit
from clickvol.evaluation.simulated_user import PlacedClick, SimulatedUser, Truth
from clickvol.io.formats import write_mask
from clickvol.io.volume import Mask, Modality
from clickvol.metrics.scores import score_masks
from clickvol.prompts.click import Click

ORGAN_ORACLE = "organ and tumour as one mask from the label: an oracle"
"""What an audit says of a contestant that was shown the organ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run of an evaluation.

    Attributes:
        key: which contestant, scan, user and first click.
        placement: of the first click; None for a contestant that takes none.
        num_clicks: numbers of clicks that are scored, rising; (0,) without clicks.
        mask_file: where the last mask is kept; None for nowhere.
    """

    key: RunKey
    placement: Placement | None
    num_clicks: tuple[int, ...]
    mask_file: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """A case as the examiner has it: the scan that contestants see, and the truth that they do not.

    Attributes:
        scan: for contestants.
        truth: for the user and the scorer.
        group: the patient.
        modality: of the scan.
        scan_with_organ: the same for contestants that take an organ mask; None where none is shown.
    """

    scan: Scan
    truth: Truth
    group: str
    modality: Modality
    scan_with_organ: Scan | None = None

    def scan_for(self, contestant: Contestant) -> Scan:
        """Return what a contestant sees."""
        if self.scan_with_organ is not None and contestant.takes_organ_mask:
            return self.scan_with_organ
        return self.scan


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What came of a run.

    Attributes:
        key: which run.
        rows: of the table, one per number of clicks.
        clicks: one per click.
    """

    key: RunKey
    rows: tuple[Row, ...]
    clicks: tuple[ClickAudit, ...]


@dataclass(slots=True)
class _Standing:
    """Where a run stands."""

    mask: NDArray[np.uint8]
    oracle: str | None = None
    seconds: float = 0.0
    failure: str | None = None
    clicks: list[Click] = field(default_factory=list)
    audits: list[ClickAudit] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def ask(contestant: Contestant, case: Examined, plan: RunPlan, protocol: Protocol) -> RunOutcome:
    """Let one user question one contestant about one scan.

    A contestant that fails, or answers with an empty mask, or too late, has the scores of an empty mask, and
    the user goes on from there. A user who finds nothing wrong stops: later numbers of clicks repeat the
    scores, at no time.

    Args:
        contestant: who answers.
        case: the scan and its truth.
        plan: which run.
        protocol: the rules.

    Raises:
        ConfigError: when the contestant cannot be asked at all.
        OutputError: when the mask cannot be kept.
    """
    scan = case.scan_for(contestant)
    opened = contestant.open_scan(scan)
    empty = np.zeros(case.scan.volume.grid.shape_dhw, dtype=np.uint8)
    standing = _Standing(empty, None if scan.organ is None else ORGAN_ORACLE)
    if plan.placement is None:
        _answer(opened, standing, None, protocol)
        standing.rows.append(_row(case, plan.key, 0, standing, protocol))
    else:
        _question(opened, case, plan, protocol, standing)
    if plan.mask_file is not None:
        plan.mask_file.parent.mkdir(parents=True, exist_ok=True)
        volume = case.scan.volume
        write_mask(Mask(standing.mask, volume.grid), plan.mask_file)
    return RunOutcome(plan.key, tuple(standing.rows), tuple(standing.audits))


def _question(
    opened: OpenedScan, case: Examined, plan: RunPlan, protocol: Protocol, standing: _Standing
) -> None:
    """Click up to the largest number, and score the numbers that are asked for."""
    if plan.placement is None:
        return
    key = plan.key
    user = SimulatedUser(
        case.truth,
        case.scan.volume.grid,
        case_id=key.case_id,
        seed=key.seed,
        placement=plan.placement,
        next_clicks=protocol.next_clicks,
    )
    for number in range(1, plan.num_clicks[-1] + 1):
        wanted = number in plan.num_clicks
        try:
            placed = user.first_click() if number == 1 else user.next_click(standing.mask)
        except ClickError as error:
            # No voxel of this scan is where the first click should be: there is nothing to answer.
            standing.failure = str(error)
            standing.rows += [_row(case, key, n, standing, protocol) for n in plan.num_clicks]
            return
        if placed is None:
            standing.seconds = 0.0
        else:
            standing.clicks.append(placed.click)
            standing.audits.append(_audit(placed, number, key, case.truth, standing.oracle))
            if wanted or protocol.next_clicks == "error":
                _answer(opened, standing, user.box, protocol)
        if wanted:
            standing.rows.append(_row(case, key, number, standing, protocol))


def _answer(opened: OpenedScan, standing: _Standing, box: BoxPrompt | None, protocol: Protocol) -> None:
    """Ask, and put the answer, or what is wrong with it, where the run stands."""
    standing.mask = np.zeros_like(standing.mask)
    standing.seconds = 0.0
    try:
        answer = opened.answer(tuple(standing.clicks))
    except ConfigError:
        raise
    except (ClickvolError, MemoryError, torch.OutOfMemoryError) as error:
        standing.failure = " ".join(str(error).split()) or type(error).__name__
        return
    standing.seconds = answer.seconds
    standing.failure = None
    if answer.mask.shape != standing.mask.shape:
        standing.failure = f"a mask of shape {answer.mask.shape} for a scan of {standing.mask.shape}"
        return
    limit = protocol.time_limit_seconds
    if limit is not None and answer.seconds > limit:
        standing.failure = f"took {answer.seconds:.1f} s, the protocol allows {limit:g} s"
        return
    mask = (answer.mask > 0).astype(np.uint8)
    if box is not None:
        mask = box.cut(mask, standing.clicks)
    if not mask.any():
        standing.failure = "the mask is empty"
    standing.mask = mask


def _row(case: Examined, key: RunKey, number: int, standing: _Standing, protocol: Protocol) -> Row:
    spacing = case.scan.volume.grid.spacing_dhw_mm
    return {
        **key._asdict(),
        "group": case.group,
        "modality": case.modality,
        "num_clicks": number,
        **score_masks(standing.mask, case.truth.array, spacing, protocol.nsd_tolerances_mm),
        "seconds": standing.seconds,
        "failure": standing.failure,
    }


def _audit(placed: PlacedClick, number: int, key: RunKey, truth: Truth, oracle: str | None) -> ClickAudit:
    return ClickAudit(
        **key._asdict(),
        click=number,
        voxel_ijk=placed.voxel_ijk,
        world_ras_mm=placed.world_ras_mm,
        foreground=placed.click.foreground,
        drawn_from=placed.drawn_from,
        region_voxels=placed.region_voxels,
        label_sha256=truth.sha256,
        oracle=oracle,
    )

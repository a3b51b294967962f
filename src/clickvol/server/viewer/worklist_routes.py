"""Routes of the worklist: the cases, who has which, opening one, and saving it."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from clickvol.errors import ClickvolError
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import read_volume, write_mask
from clickvol.io.volume import Mask, Volume
from clickvol.metrics.diameters import longest_diameters
from clickvol.server.dependencies import All
from clickvol.server.refusal import REFUSALS, RefusedError
from clickvol.server.served_session import ScanRecord
from clickvol.server.sessions import Sessions
from clickvol.server.viewer.routes import choices, plain_nifti, thumbnail
from clickvol.server.viewer.worklist import Case, Measured, Status, Worklist
from clickvol.server.wire import OpenedOut, SeriesOut

Annotator = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[\w-]+$")]

router = APIRouter(prefix="/api/worklist", tags=["worklist"], responses=REFUSALS)


class CaseOut(BaseModel):
    """A case of the list; `mine` says whether the one who asks has it, `held` whether another one does."""

    id: int
    name: str
    status: Status
    mine: bool
    held: bool
    seconds: float
    objects: list[Measured]


class PictureOut(BaseModel):
    """A picture as a data URL; None where there is none."""

    picture: str | None


class ClaimIn(BaseModel):
    """Who asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    annotator: Annotator


class OpenCaseIn(ClaimIn):
    """Who asks, and for which volume of several."""

    volume: int | None = Field(default=None, ge=0)


class NextIn(ClaimIn):
    """Who asks for the case after which."""

    after: int = Field(default=0, ge=0)


class FinishIn(ClaimIn):
    """A case that is done, with the session that has its masks, or skipped, without one."""

    session_id: str | None = Field(default=None, max_length=64)
    seconds: float = Field(ge=0, le=1e7)


async def _worklist_of(request: Request) -> Worklist:
    worklist: Worklist | None = request.app.state.worklist
    if worklist is None:
        raise RefusedError(
            404, "this server has no worklist; start it with clickvol view MANIFEST.csv or FOLDER"
        )
    return worklist


List = Annotated[Worklist, Depends(_worklist_of)]


def _described(worklist: Worklist, case: Case, annotator: str) -> CaseOut:
    state = worklist.state(case.id)
    return CaseOut(
        id=case.id,
        name=case.name,
        status=state.status,
        mine=state.annotator == annotator,
        held=worklist.is_held(case.id, annotator),
        seconds=state.seconds,
        objects=state.objects,
    )


@router.get("")
async def cases(request: Request, annotator: Annotator = "somebody") -> list[CaseOut]:
    """List the cases; none where the server has no worklist."""
    worklist: Worklist | None = request.app.state.worklist
    return [] if worklist is None else [_described(worklist, case, annotator) for case in worklist.cases]


@router.post("/next")
async def claim_next(given: NextIn, worklist: List) -> CaseOut | None:
    """Take the next case that is not done and that nobody has; nothing where there is none."""
    case = worklist.claim_next(given.annotator, given.after)
    return None if case is None else _described(worklist, case, given.annotator)


@router.get("/{case_id}/picture")
async def picture(case_id: int, worklist: List, sessions: All) -> PictureOut:
    """Return a small picture of a case's middle slice; none where its scan cannot be read."""
    case = worklist.case(case_id)
    if case_id not in worklist.pictures:
        try:
            volume = await sessions.on_files(lambda _: _read(case, sessions))
            worklist.pictures[case_id] = thumbnail(volume)
        except ClickvolError:
            worklist.pictures[case_id] = None
    return PictureOut(picture=worklist.pictures[case_id])


@router.get("/{case_id}/volumes")
async def volumes(case_id: int, worklist: List, sessions: All) -> list[SeriesOut]:
    """List the volumes of a case whose scan holds several, each with a picture of its middle slice."""
    case = worklist.case(case_id)
    return await sessions.on_files(lambda _: choices(case.scan, sessions.limits, only=case.series))


@router.get("/{case_id}/scan.nii", response_class=Response)
async def scan_ahead(case_id: int, worklist: List, sessions: All) -> Response:
    """Return the scan of a case as the page shows it before anybody takes it, so that it opens quickly."""
    case = worklist.case(case_id)
    volume = await sessions.on_files(lambda _: _read(case, sessions))
    sessions.ahead = {_record(case): volume}
    return plain_nifti(volume)


def _read(case: Case, sessions: Sessions) -> Volume:
    return read_volume(case.scan, series=case.series, volume_index=case.volume, limits=sessions.limits)


def _record(case: Case) -> ScanRecord:
    modality = None if case.modality is None or case.modality == "unknown" else case.modality
    scan = str(case.scan)
    return ScanRecord(scan=scan, is_upload=False, series=case.series, volume=case.volume, modality=modality)


@router.post("/{case_id}/claim")
async def claim(case_id: int, given: ClaimIn, worklist: List) -> CaseOut:
    """Take a case, or renew the lease; 409 where another annotator has it."""
    worklist.claim(case_id, given.annotator)
    return _described(worklist, worklist.case(case_id), given.annotator)


@router.post("/{case_id}/open", status_code=201)
async def open_case(
    case_id: int, given: OpenCaseIn, worklist: List, sessions: All, request: Request
) -> OpenedOut:
    """Take a case and open a session on its scan, or on the volume of it that the annotator chose."""
    case = worklist.case(case_id)
    if given.volume is not None:
        case = replace(case, volume=given.volume)
    worklist.claim(case_id, given.annotator)
    session_id, served = await sessions.open(lambda _: _record(case), request.is_disconnected)
    return await sessions.describe(session_id, served)


@router.post("/{case_id}/done")
async def finish(case_id: int, given: FinishIn, worklist: List, sessions: All, request: Request) -> CaseOut:
    """Write a session's label map to the place of a case, which then is done; without one it is skipped."""
    case = worklist.case(case_id)
    worklist.claim(case_id, given.annotator)
    objects: list[Measured] = []
    if given.session_id is not None:
        served = sessions.get(given.session_id)
        if served.scan_path.resolve() != case.scan.resolve():
            raise RefusedError(409, "this session is on another scan than the case; open the case first")
        (mask, objects), _ = await sessions.run(
            served, lambda session, _: _measured(session), request.is_disconnected
        )
        await sessions.on_files(lambda _: _write(mask, case))
    worklist.finish(
        case_id, given.annotator, skipped=given.session_id is None, seconds=given.seconds, objects=objects
    )
    return _described(worklist, case, given.annotator)


def _write(mask: Mask, case: Case) -> None:
    case.output.parent.mkdir(parents=True, exist_ok=True)
    write_mask(mask, case.output)


def _measured(session: InteractiveSession) -> tuple[Mask, list[Measured]]:
    objects = [
        Measured(
            name=known.name or f"Tumour {known.id}",
            volume_ml=known.volume_ml,
            longest_diameter_mm=_longest_mm(session.mask(known.id)),
            num_clicks=len(known.prompts),
        )
        for known in session.objects
        if known.num_voxels
    ]
    return session.mask(), objects


def _longest_mm(mask: Mask) -> float:
    diameters = longest_diameters(mask.array, mask.grid)
    return 0.0 if diameters is None else diameters[0].mm

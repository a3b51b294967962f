"""What travels between server and client, as pydantic models: the same for both sides. Torch-free.

Positions are in millimetres RAS, voxel indices (i, j, k) of the file as stored, volumes in millilitres.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import DrawnVoxels
from clickvol.io.labelled_mask import TERMS
from clickvol.io.volume import Modality, SaidModality, Volume
from clickvol.preprocessing.intensity import recognise_modality, value_sample
from clickvol.prompts.click import Click
from clickvol.prompts.outlines import outline_of
from clickvol.prompts.spatial import Box, Lasso, Line, Scribble

if TYPE_CHECKING:
    from clickvol.interactive.scene import SessionObject
    from clickvol.interactive.session import Answer, InteractiveSession

Triple = tuple[float, float, float]
ExportFormat = Literal["nifti", "nrrd", "dicom-seg", "rtstruct"]

MarkKind = Literal["line", "box", "scribble", "lasso"]
_MARK_KINDS: dict[type, MarkKind] = {Line: "line", Box: "box", Scribble: "scribble", Lasso: "lasso"}

RESEARCH_USE = "research use, not a medical device"

_MAX_PATH_LENGTH = 4096
_MAX_NAME_LENGTH = 64
# What DICOM can hold as well: no control characters, no backslash (PS3.5, 6.2).
_NAME = r"^[^\x00-\x1f\x7f\\]*$"
_MAX_OBJECTS = 255  # a label map of bytes holds no more

ObjectId = Annotated[int, Field(ge=1, le=_MAX_OBJECTS)]


class _In(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class OpenUploadIn(_In):
    """What may be said of an uploaded scan."""

    series: str | None = Field(default=None, min_length=1, max_length=64)
    volume: int | None = Field(default=None, ge=0)
    modality: SaidModality | None = None


class NamedIn(_In):
    """A file under the allowed root: relative to it, or absolute."""

    path: str = Field(min_length=1, max_length=_MAX_PATH_LENGTH)


class OpenPathIn(NamedIn, OpenUploadIn):
    """A scan under the allowed root."""


class ClickIn(_In):
    """One click: mm in RAS or LPS, or a voxel of the file."""

    position: Triple
    space: Literal["ras", "lps", "ijk"] = "ras"
    positive: bool = True
    object_id: ObjectId = 1
    overlap: Literal["yield", "take"] = "yield"


class NewObjectIn(_In):
    """A further object."""

    name: str = Field(default="", max_length=_MAX_NAME_LENGTH, pattern=_NAME)


class ObjectChangeIn(_In):
    """What of an object is to change; what is left out stays, and "" is none."""

    frozen: bool | None = None
    name: str | None = Field(default=None, max_length=_MAX_NAME_LENGTH, pattern=_NAME)
    term: str | None = Field(default=None, description="code of one of GET /api/terms")
    colour: str | None = Field(default=None, pattern=r"^(#[0-9a-f]{6})?$")

    @model_validator(mode="after")
    def _changes_something(self) -> "ObjectChangeIn":
        if not self.model_dump(exclude_none=True):
            raise ValueError("nothing is to change; give frozen, name, term or colour")
        if self.term and self.term not in TERMS:
            raise ValueError(f"there is no term {self.term!r}; give the code of one of GET /api/terms")
        return self


class MaskChangeIn(_In):
    """Voxels to paint into a mask or out of it."""

    voxels: DrawnVoxels
    added: bool = True
    overlap: Literal["yield", "take"] = "yield"


class MaskPathIn(NamedIn):
    """A file with masks under the allowed root, and which of them."""

    segment: str | None = Field(default=None, max_length=_MAX_NAME_LENGTH)


class TermOut(_Out):
    """What an object can be, in SNOMED CT."""

    code: str
    meaning: str
    category: str


class DiameterOut(_Out):
    """A distance between two voxel centres of an object, and where they are."""

    mm: float
    ends_ras_mm: tuple[Triple, Triple]


class MeasuredOut(_Out):
    """The size of an object: in space, and on the slice of the scan where it is longest."""

    longest: DiameterOut | None
    longest_on_slice: DiameterOut | None


class ProposalOut(_Out):
    """A first mask of an automatic model; no voxels where it sees nothing."""

    model_id: str
    voxels: DrawnVoxels | None = None
    place_ras_mm: Triple | None = None
    warnings: list[str] = []


class ComparisonOut(_Out):
    """How far the masks are from a reference: of all objects together.

    `differs_at_ras_mm` is the innermost voxel of the largest part that one of the two lacks.
    """

    dice: float
    volume_ml: float
    reference_ml: float
    missing_ml: float
    surplus_ml: float
    differs_at_ras_mm: Triple | None
    largest_difference_ml: float


class ResumeIn(_In):
    """One of the logs that were offered when the session was opened."""

    log: str = Field(min_length=1, max_length=128)


class ClickOut(_Out):
    """A click of an object; by its place among the interactions since the last reset it can be edited."""

    ras_mm: Triple
    positive: bool
    place: int


class MarkOut(_Out):
    """Another prompt of an object: both ends of a line, both outer corners of a box, or voxels drawn."""

    kind: MarkKind
    points_ras_mm: list[Triple]
    positive: bool
    place: int


class ObjectOut(_Out):
    """An object of a session."""

    id: int
    name: str
    term: str
    colour: str
    frozen: bool
    volume_ml: float
    num_voxels: int
    clicks: list[ClickOut]
    marks: list[MarkOut]


class StateOut(_Out):
    """Where a session stands. The tag is that of its interactions: with the same tag, masks are the same."""

    tag: str
    objects: list[ObjectOut]
    can_undo: bool
    can_redo: bool

    @classmethod
    def of(cls, session: "InteractiveSession") -> "StateOut":
        """Describe a session."""
        grid = session.scan.volume.grid
        names = ("id", "name", "term", "colour", "frozen", "volume_ml", "num_voxels")
        objects = []
        for known in session.objects:
            clicks, marks = prompts_out(known, grid)
            said = {name: getattr(known, name) for name in names}
            objects.append(ObjectOut(**said, clicks=clicks, marks=marks))
        history = session.history
        return cls(tag=history.tag, objects=objects, can_undo=history.can_undo, can_redo=history.can_redo)


def prompts_out(known: "SessionObject", grid: VolumeGrid) -> tuple[list[ClickOut], list[MarkOut]]:
    """Describe the prompts of an object; of a given mask there is nothing to draw but the mask."""
    clicks, marks = [], []
    for prompt, place in zip(known.prompts, known.prompted_at, strict=True):
        points = [(at.x, at.y, at.z) for at in outline_of(prompt, grid)]
        match prompt:
            case Click():
                clicks.append(ClickOut(ras_mm=points[0], positive=prompt.foreground, place=place))
            case Line() | Box() | Scribble() | Lasso():
                kind, positive = _MARK_KINDS[type(prompt)], prompt.foreground
                marks.append(MarkOut(kind=kind, points_ras_mm=points, positive=positive, place=place))
    return clicks, marks


class StatusOut(StateOut):
    """Where a session stands, and whether it computes."""

    busy: bool


class ChangedOut(_Out):
    """The state after a change."""

    state: StateOut


class AnswerOut(_Out):
    """What came of a click."""

    object_id: int
    num_voxels: int
    volume_ml: float
    seconds: float
    warnings: list[str]

    @classmethod
    def of(cls, answer: "Answer") -> "AnswerOut":
        """Describe an answer."""
        return cls(
            object_id=answer.object_id,
            num_voxels=answer.num_voxels,
            volume_ml=answer.volume_ml,
            seconds=sum(answer.seconds.values()),
            warnings=list(answer.warnings),
        )


class CandidateOut(_Out):
    """One of several masks for the same prompts."""

    num_voxels: int
    predicted_dice: float


class AdviceOut(_Out):
    """What the model says of its last answer on an object: how good, what else, and where to click next."""

    expected_dice: float | None = None
    expected_dice_interval: tuple[float, float] | None = None
    comparable_patients: int | None = None
    candidates: list[CandidateOut] = []
    chosen: int = 0
    next_click_ras_mm: Triple | None = None

    @classmethod
    def of(cls, session: "InteractiveSession", object_id: int) -> "AdviceOut":
        """Ask a session."""
        scene = session.scene
        known = scene.object(object_id)
        at = known.shaped_at
        if known.answered_at is None or at is None or at not in (known.answered_at, known.chosen_at):
            return cls()
        answer, choice = session.scene_masks.answer(scene, known.answered_at), scene.interactions[at]
        place, expected = answer.next_click(), answer.expected
        next_click = None if place is None else session.scan.volume.grid.to_world(place)
        return cls(
            expected_dice=answer.expected_dice,
            expected_dice_interval=None if expected is None else expected.interval,
            comparable_patients=None if expected is None else expected.patients,
            candidates=[
                CandidateOut(num_voxels=each.packed.num_voxels, predicted_dice=each.predicted_dice)
                for each in answer.candidates
            ],
            chosen=getattr(choice, "number", 0),
            next_click_ras_mm=None if next_click is None else (next_click.x, next_click.y, next_click.z),
        )


class ClickedOut(ChangedOut):
    """The state after a click, and what came of it."""

    answer: AnswerOut


class AddedOut(ChangedOut):
    """The state with a further object, and its id."""

    object_id: int


class ExtentOut(_Out):
    """Smallest and largest RAS mm of any voxel centre."""

    low: Triple
    high: Triple


class ScanOut(_Out):
    """The scan of a session."""

    shape_ijk: tuple[int, int, int]
    spacing_ijk_mm: Triple
    modality: Modality
    extent_ras_mm: ExtentOut
    is_dicom: bool
    notes: list[str]

    @classmethod
    def of(cls, volume: Volume, *, is_dicom: bool) -> "ScanOut":
        """Describe a scan, and as which it is treated where its file does not say."""
        d, h, w = volume.grid.shape_dhw
        sd, sh, sw = (float(v) for v in volume.grid.spacing_dhw_mm)
        low, high = volume.grid.extent_ras_mm()
        modality = volume.modality
        if modality == "unknown":
            modality = recognise_modality(volume, value_sample(volume)).modality
        return cls(
            shape_ijk=(w, h, d),
            spacing_ijk_mm=(sw, sh, sd),
            modality=modality,
            extent_ras_mm=ExtentOut(low=(low.x, low.y, low.z), high=(high.x, high.y, high.z)),
            is_dicom=is_dicom,
            notes=list(volume.notes),
        )


class SeriesOut(_Out):
    """A series to choose, or one of its volumes; `picture` is a data URL, `problem` says why it is not read."""

    uid: str
    volume: int | None
    number: int | None
    description: str
    modality: str
    num_slices: int
    shape_ijk: tuple[int, int, int] | None
    picture: str | None
    problem: str | None


class ResumableOut(_Out):
    """An earlier session on the same scan."""

    log: str
    num_clicks: int
    last_time: str


class LeaseOut(_Out):
    """How long a session lives without being asked for."""

    lease_seconds: int


class OpenedOut(LeaseOut):
    """A new session."""

    session_id: str
    model_id: str
    scan: ScanOut
    resumable: list[ResumableOut]
    state: StateOut


class HealthOut(_Out):
    """Whether the server works, and how much it has to do."""

    status: Literal["ok"] = "ok"
    version: str
    sessions: int
    queue: int


class ModelOut(_Out):
    """The model that answers."""

    id: str
    title: str
    method: str
    modalities: list[str]
    licence: str
    notes: list[str]
    sha256: str
    use: str = RESEARCH_USE
    proposer: str | None = None


class StartOut(_Out):
    """What the viewer opens at once."""

    path: str | None
    version: str


class ErrorOut(_Out):
    """Why a request was turned down, in one line."""

    error: str
    detail: str

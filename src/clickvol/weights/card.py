"""What is known about a set of weights: where they come from, what they are for, how to check them.

Torch-free, so that listing models costs nothing.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.methods.registry import METHODS, valid_method
from clickvol.weights.cache import cached_model_folder, cached_original
from clickvol.weights.expected_dice import ExpectedDice
from clickvol.weights.registry import PLAIN_NAME, PackageSource, RegistryEntry, UrlSource, list_entries

DEFAULT_MODEL_ID = "promise3d-lesions"
"""The model that is used where none is named; ships in the package."""

_SHIPPED_FOLDER = Path(__file__).parent / "shipped"


class FieldOfViewPlan(BaseModel):
    """The views that the model was trained for.

    Attributes:
        first_voxel_mm, finest_voxel_mm, coarsest_voxel_mm: voxel sides of the first view, and the finest and
            the coarsest of the others.
        click_off_middle: how far from the middle of a view that is fitted to the object the first click lies,
            in each direction, as a part of the view's side; 0 to fit the view to the object alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_voxel_mm: float = Field(gt=0)
    finest_voxel_mm: float = Field(gt=0)
    coarsest_voxel_mm: float = Field(gt=0)
    click_off_middle: float = Field(default=0.0, ge=0, lt=0.5)


class IntensityPlan(BaseModel):
    """Constants of a published model instead of this package's own scale: clip bounds in the scan's unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: tuple[float, float]
    mean: float
    deviation: float = Field(gt=0)


class BaseModelFacts(BaseModel):
    """Which model the weights file is the difference from.

    Attributes:
        id: of the base; its card is looked for among the shipped and fetched models, and beside this card.
        sha256: of the base's weights file, by which it is known.
        card: path of the base's card from the folder of this card, where it is neither; None for no such.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: str
    card: str | None = None


def _curve(stored: object) -> object:
    return {"knots": stored} if isinstance(stored, list) else stored


class ModelCard(BaseModel):
    """The JSON beside a weights file.

    Attributes:
        base: where the weights file holds only the difference from another model (`weights/difference.py`),
            which one; None where it holds all.
        network: configuration of the network; validated by the method when it is built.
        fields_of_view: voxel sizes for inference; None for 2D networks.
        intensity: constants of a published model; "wide" for CT from air to metal, MR and PET; None for the
            soft-tissue window on CT and percentiles on all else (`preprocessing/intensity.py`).
        expected_dice: what the Dice was that its score head or probability predicts; None where nothing was
            measured. Older cards have the knots alone.
        training_data: one sentence per source, with its licence and citation.
        training_scans, training_patients: what it was trained on, to warn who scores it on that: beginnings of
            the SHA-256 of prepared scans, and of patients' ids; empty where nobody wrote them down.
        scores: measured results, each with the command that made it.
        notes: limits a user should know.
        bytes, sha256: of the weights file, checked before it is parsed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    method: Annotated[str, AfterValidator(valid_method)]
    base: BaseModelFacts | None = None
    network: dict[str, Any]
    fields_of_view: FieldOfViewPlan | None = None
    intensity: IntensityPlan | Literal["wide"] | None = None
    expected_dice: Annotated[ExpectedDice | None, BeforeValidator(_curve)] = None
    modalities: list[str]
    training_data: list[str]
    training_scans: list[str] = []
    training_patients: list[str] = []
    training_command: str
    licence: str
    scores: list[dict[str, Any]] = []
    notes: list[str] = []
    num_parameters: int
    dtype: Literal["float16", "float32"]
    bytes: int
    sha256: str
    weights_file: str
    clickvol_version: str

    @property
    def weights_version(self) -> str:
        """Which weights, in words short enough for a DICOM attribute."""
        return f"sha256 {self.sha256[:12]}"

    @property
    def num_candidates(self) -> int:
        """Masks that it offers beside the first."""
        return int(self.network.get("num_candidates", 0))

    @property
    def is_automatic(self) -> bool:
        """Tell whether it is a 3D network that takes no clicks: a baseline, or without prompt encoder."""
        if METHODS[self.method].is_baseline:
            return True
        return "prompt" in self.network and self.network["prompt"] is None


def list_cards() -> list[ModelCard]:
    """Return the cards of the models in the package, in the order of their ids."""
    return [_parse(path) for path in sorted(_SHIPPED_FOLDER.glob("*.json"))]


def find_card(id_or_path: str | Path) -> Path:
    """Return the path of a model's card; ModelNotFoundError when there is no such model.

    It is named by the id of a shipped or fetched model, or by a card, a weights file beside its card, or a
    folder with one.
    """
    shipped = _SHIPPED_FOLDER / f"{id_or_path}.json"
    path = Path(id_or_path)
    if path.name == str(id_or_path):
        if shipped.is_file():
            return shipped
        fetched = _fetched_card(str(id_or_path))
        if fetched is not None and not path.exists():
            return fetched
    bare = path.with_name(f"{path.name}.json")
    if not path.exists() and bare.with_suffix(".safetensors").is_file() and bare.is_file():
        return bare
    if path.is_dir():
        # Other .json files may lie there: a training run keeps its configuration beside its model.
        cards = sorted(p for p in path.glob("*.json") if p.with_suffix(".safetensors").is_file())
        if len(cards) == 1:
            return cards[0]
        raise ModelNotFoundError(
            f"{path} holds {len(cards)} cards with weights beside them, but a model folder holds one; "
            "give the path of a card"
        )
    if path.is_file():
        card = path if path.suffix == ".json" else path.with_suffix(".json")
        if card.is_file():
            return card
        raise ModelNotFoundError(
            f"{path} has no card: {card.name} is missing beside it; weights are only loaded with the "
            "JSON that says what they are (clickvol train writes both)"
        )
    entry = {entry.id: entry for entry in list_entries()}.get(str(id_or_path))
    if entry is not None and entry.source.kind != "shipped":
        raise ModelNotFoundError(
            f"the model {entry.id} is not ready on this machine; get it with: {_command_to_get(entry)}"
        )
    known = ", ".join(card.stem for card in sorted(_SHIPPED_FOLDER.glob("*.json"))) or "none"
    raise ModelNotFoundError(
        f"there is no model {str(id_or_path)!r}; shipped models: {known}; give one of them, one that was "
        "fetched (models fetch), or a path to a card"
    )


def _command_to_get(entry: RegistryEntry) -> str:
    if isinstance(entry.source, UrlSource | PackageSource):
        original = cached_original(entry.source.original.name)
        if original.is_file():
            return f"clickvol models import {original} -o {cached_model_folder(entry.id)} --id {entry.id}"
    return f"clickvol models fetch {entry.id}"


def _fetched_card(entry_id: str) -> Path | None:
    if re.fullmatch(PLAIN_NAME, entry_id) is None:
        return None
    card = cached_model_folder(entry_id) / f"{entry_id}.json"
    return card if card.is_file() else None


def find_base(card: ModelCard, card_path: Path) -> Path | None:
    """Return the card of the model that an adapted one is the difference from; None for a model of its own.

    Raises:
        ModelNotFoundError: when it is not on this machine, or the one of its name has other weights.
        DamagedWeightsError: when it is itself a difference.
    """
    base = card.base
    if base is None:
        return None
    places = [
        _SHIPPED_FOLDER / f"{base.id}.json",
        _fetched_card(base.id),
        card_path.with_name(f"{base.id}.json"),
    ]
    places += [card_path.parent / base.card] if base.card else []
    there = [path for path in places if path is not None and path.is_file()]
    for path in there:
        known = _parse(path)
        if known.sha256 == base.sha256:
            if known.base is not None:
                raise DamagedWeightsError(
                    f"{base.id}, the base of {card.id}, is no whole model; adapt it again"
                )
            return path
    what = f"{there[0]} has other weights" if there else f"{base.id} is not on this machine"
    raise ModelNotFoundError(
        f"{card.id} is only the difference from {base.id} with the weights {base.sha256[:12]}..., but {what}; "
        f"put {base.id}.json and its weights beside {card_path}, or install the clickvol that has them"
    )


def read_card(id_or_path: str | Path) -> ModelCard:
    """Return the card of a model; ModelNotFoundError, or DamagedWeightsError when the card is not one."""
    return _parse(find_card(id_or_path))


def _parse(path: Path) -> ModelCard:
    try:
        return ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DamagedWeightsError(
            f"{path} is not a model card ({first}); take it again from where it came"
        ) from error

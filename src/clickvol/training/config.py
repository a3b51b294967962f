"""The configuration of a training run: a TOML file, every field documented here."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickvol.datasets.sampling import SamplingSection
from clickvol.errors import ConfigError
from clickvol.preprocessing.channels import OrganMaskSource


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """Which network.

    Attributes:
        id: id of the model that comes out.
        title: one line for lists.
        method: id of a 3D method.
        preset: a preset of the method, see its page in `methods`: network, loss and training clicks.
        size: size of the network, see `methods.sizes`.
        notes: limits that a user of the model should know, one sentence each.
    """

    id: str
    title: str
    method: Literal["promise3d", "sam3d_adapter", "tags"] = "promise3d"
    preset: str = "clickvol"
    size: str = "small"
    notes: list[str] = []


class FolderSection(_Section):
    """One data set.

    Attributes:
        path: folder in MSD layout below `data.root`.
        modality: of its scans.
        source: its citation.
        tumour_label: value of the object in the labels; every value above 0 when not given.
    """

    path: str
    modality: Literal["CT", "MR"]
    source: str
    tumour_label: int | None = Field(default=None, gt=0)


class DataSection(_Section):
    """Where the samples come from.

    Attributes:
        root: folder that the paths of `folders` are relative to; relative to the working folder.
        folders: labelled data sets; may be empty for phantoms only.
        validation_patients: never trained on; scored with `benchmarks/score_patients.py`.
        phantoms: number of synthetic scans, half CT and half MR; made once per run.
        phantom_share: part of the samples that come from phantoms.
    """

    root: Path = Path()
    folders: list[FolderSection] = []
    validation_patients: tuple[str, ...] = ()
    phantoms: int = Field(default=0, ge=0)
    phantom_share: float = Field(default=0.0, ge=0, le=1)


class OptimiserSection(_Section):
    """AdamW with a linear warm-up and a cosine decay.

    Attributes:
        steps: length of the schedule in optimiser steps.
        batch_size: samples per step.
        learning_rate: peak; decays to 1 % of it.
        warmup_steps: steps of the linear rise.
        weight_decay: decoupled.
        max_gradient_norm: clipping.
        average_decay: of the exponential moving average of the weights, which is what is kept.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(default=2, gt=0)
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    max_gradient_norm: float = 1.0
    average_decay: float = 0.998


class RunSection(_Section):
    """How it runs.

    Attributes:
        folder: where log, checkpoints and the model go.
        seed: of everything.
        checkpoint_every: steps between checkpoints.
        threads: CPU threads; 0 leaves it to torch.
        precision: arithmetic of the forward pass.
        start_from: a model (id or path) whose weights to begin with; "" for random ones.
        foundation: a 2D foundation (id or path, method "sam2d") whose image encoder is lifted into the
            network before training; "" for none.
        trained: "everything", or only the "adapters" and what else does not come from the foundation.
    """

    folder: Path
    seed: int = 0
    checkpoint_every: int = Field(default=200, gt=0)
    threads: int = 0
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    start_from: str = ""
    foundation: str = ""
    trained: Literal["everything", "adapters"] = "everything"


class TagsSection(_Section):
    """What TAGS looks at beside scan and clicks.

    Attributes:
        text: where the two text embeddings come from: a "file" of `weights.text_bank_file`, "clip" through
            `transformers` from local files, or a "stub" without meaning; a preset without texts needs none.
        text_file: the file; for "clip" the folder with the tower, else the one in the cache is taken.
        organ: what the texts call the object, "kidney".
        data_set: what the released form calls it instead, "kits".
        organ_mask: where organ masks come from, see `preprocessing.channels`. Phantoms have no organ: "file"
            and "gt" lay a stand-in around their tumour.
        organ_path: for "file", see `datasets.organs.OrganPlan`.
    """

    text: Literal["file", "clip", "stub"] | None = None
    text_file: Path | None = None
    organ: str = ""
    data_set: str = ""
    organ_mask: OrganMaskSource = "none"
    organ_path: str = ""


class TrainConfig(_Section):
    """A whole training run; the section `tags` belongs to that method alone."""

    model: ModelSection
    data: DataSection = DataSection()
    sampling: SamplingSection = SamplingSection()
    optimiser: OptimiserSection
    run: RunSection
    tags: TagsSection | None = None

    @model_validator(mode="after")
    def _tags_has_its_section(self) -> Self:
        if self.model.method == "tags" and self.tags is None:
            msg = "the method tags needs a section [tags]; see TagsSection in training/config.py"
            raise ValueError(msg)
        if self.model.method != "tags" and self.tags is not None:
            msg = (
                f"the section [tags] is for the method tags, not {self.model.method}; leave it out"
            )
            raise ValueError(msg)
        return self


def read_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a TOML file and apply "section.field=value" overrides (values as in TOML, or bare words).

    Raises:
        ConfigError: when the file is missing or not TOML, or a value is wrong; the field is named.
    """
    if not path.is_file():
        msg = f"the configuration {path} does not exist"
        raise ConfigError(msg)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid TOML: {error}"
        raise ConfigError(msg) from error
    for override in overrides:
        _apply(content, override)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"{path}: {where}: {first['msg']}"
        raise ConfigError(msg) from error


def _apply(content: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        msg = f"--set takes section.field=value, not {override!r}"
        raise ConfigError(msg)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = content
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            msg = f"--set {override}: {key} is a value, not a section"
            raise ConfigError(msg)
    section[keys[-1]] = value

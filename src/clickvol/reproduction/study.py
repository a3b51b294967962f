"""A study: data sets, who is compared on them, by which rules, and what was published. A TOML file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clickvol.datasets.prepared import CaseModality, Triple
from clickvol.datasets.sources import SourceKind
from clickvol.errors import ConfigError
from clickvol.evaluation.cases import OrganMaskChoice
from clickvol.evaluation.protocol import DEFAULT_PROTOCOL, Protocol, read_protocol
from clickvol.files.configs import shipped_config
from clickvol.files.validation import checked, read_toml
from clickvol.predict.segmentation import Procedure

_STUDIES = Path(__file__).with_name("studies")

TASK_FIELD = "{task}"
"""Stands for the name of the task in `TrainArm.config`."""

# The name of a folder, and of a method on a command line.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSet(_Section):
    """One data set, as `clickvol data prepare` takes it.

    Attributes:
        folder: where it is, below the folder with the raw data.
        source: its citation.
        sha256: of its scans and labels as they come, see `preparation.source_sha256`; "" where nobody wrote it
            down. Other files are refused before any work.
        obtain: where a user gets it, for the message when it is missing.
        tumour_label, spacing, constants, groups, seed, organs: see `PreparationPlan`; groups and splits are
            files relative to the study.
        splits: file with the cases of each part. Without one it is the published split of `constants` where the
            set is whole, see `datasets.published.published_split`, else one that is drawn.
    """

    name: Name
    folder: str
    layout: SourceKind = "msd"
    modality: CaseModality
    source: str
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    obtain: str = ""
    tumour_label: int | None = Field(default=None, gt=0)
    spacing: Triple | Literal["native"] | None = None
    constants: str | None = None
    groups: Path | None = None
    splits: Path | None = None
    seed: int = Field(default=0, ge=0)
    organs: str = ""


class Task(_Section):
    """Data sets that one model is trained on; each is a column of the table."""

    name: Name
    title: str
    data: tuple[DataSet, ...] = Field(min_length=1)


class _Published(_Section):
    data: str
    clicks: int = Field(ge=0)
    source: str


class PublishedScore(_Published):
    """A number to compare with: percent, after so many clicks (0 for a method without), and where it stands."""

    dice: float = Field(ge=0, le=100)
    nsd: float = Field(ge=0, le=100)


class PublishedGain(_Published):
    """By how many percent of the Dice of the best of some arms another one was ahead elsewhere."""

    over: tuple[Name, ...] = Field(min_length=1)
    percent: float


class _Arm(_Section):
    """A study arm, a row of the table; `needs` is the hardware that somebody has measured, and who."""

    name: Name
    title: str
    needs: str = ""
    published: tuple[PublishedScore, ...] = ()
    published_gains: tuple[PublishedGain, ...] = ()


class TrainArm(_Arm):
    """A model that this package trains.

    Attributes:
        config: training file, relative to the study; "{task}" in it stands for the name of the task. Where
            it names no data of its own, or other data, the study's are taken.
        text_config: the same for `reproduce --as text`, where the paper's text differs from its released code;
            "" where it does not, or nobody knows.
        overrides: "section.field=value", as `clickvol train --set` takes them.
    """

    kind: Literal["train"]
    config: str
    text_config: str = ""
    overrides: tuple[str, ...] = ()


class NnunetArm(_Arm):
    """The real nnU-Net; see `NnunetSettings`."""

    kind: Literal["nnunet"]
    configuration: str = "3d_fullres"
    epochs: int = Field(default=1000, gt=0)
    iterations_per_epoch: int = Field(default=250, gt=0)
    memory_gb: float | None = None
    mirroring: bool = True


class MethodArm(_Arm):
    """Anything that needs no training of its own.

    Attributes:
        method: as `clickvol evaluate` takes it, see `evaluation.methods`; "ball:50". With the name of a trained
            arm in braces it is that arm's model asked in another way: "random-click:{promise3d}".
    """

    kind: Literal["method"]
    method: str

    @property
    def of_arm(self) -> str | None:
        """Name of the arm whose model it is; None for one that needs none."""
        named = re.search(r"{(.+)}", self.method)
        return named[1] if named else None


Arm = TrainArm | NnunetArm | MethodArm


class Claim(_Section):
    """One arm is better than another in the mean Dice over patients; named before anything is scored."""

    name: Name
    title: str
    arm: str
    against: str
    clicks: int = Field(default=1, ge=1)


class Budget(_Section):
    """Less than the study asks for, the same for every arm of it, named before anything is trained.

    Attributes:
        reason: why it is less, and what it therefore cannot say; printed with its tables.
        arms: names of those that are made; claims about other arms wait for the whole study.
        seeds: of trainings, instead of the study's.
        users: simulated users per scan, instead of the protocol's.
        overrides: what is less, "section.field=value", after those of the arms.
        arm_overrides: what else is less for single arms, by their names: not every key suits every network.
    """

    name: Name
    reason: str = Field(min_length=1)
    arms: tuple[Name, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = ()
    users: int | None = Field(default=None, ge=1)
    overrides: tuple[str, ...] = ()
    arm_overrides: dict[Name, tuple[str, ...]] = {}


class ProtocolSection(_Section):
    """How it is scored: a preset of `evaluation.protocol`, what is given instead of its numbers, and the part.

    `organ_mask` is what models of TAGS that see an organ mask are shown.
    """

    name: str = DEFAULT_PROTOCOL
    num_clicks: tuple[int, ...] | None = None
    seeds: int | None = None
    nsd_tolerance_mm: float | None = None
    procedure: Procedure | None = None
    split: Literal["train", "val", "test"] = "test"
    organ_mask: OrganMaskChoice = "none"

    def protocol(self) -> Protocol:
        """Return the rules; ConfigError for an unknown preset or values that contradict."""
        return read_protocol(**self.model_dump(exclude={"split", "organ_mask"}))


class Study(_Section):
    """A table to make.

    Attributes:
        source: what is reproduced, a citation; "" for a study of one's own.
        notes: printed below the table, one sentence each.
        reference: name of the arm that the others are tested against.
        folds: of the splits; each arm is trained once per fold and scored on that fold's part.
        seeds: of trainings, instead of the training files'; each arm is trained once per fold and seed. Fold n
            adds 1000 n: trainings that began with the same weights would not be independent.
        tasks, arms, claims, budgets: see their types.
    """

    name: Name
    title: str
    source: str = ""
    notes: tuple[str, ...] = ()
    protocol: ProtocolSection = ProtocolSection()
    reference: str | None = None
    folds: tuple[int, ...] = Field(default=(0,), min_length=1)
    seeds: tuple[int, ...] = ()
    tasks: tuple[Task, ...] = Field(min_length=1)
    arms: tuple[Annotated[Arm, Field(discriminator="kind")], ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    budgets: tuple[Budget, ...] = ()

    @property
    def data(self) -> tuple[DataSet, ...]:
        """The data sets of all tasks."""
        return tuple(data for task in self.tasks for data in task.data)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        arms, data = [arm.name for arm in self.arms], [one.name for one in self.data]
        repeated: list[tuple[str | int, ...]] = [tuple(arms), tuple(data), self.folds, self.seeds]
        repeated += [tuple(one.name for one in named) for named in (self.tasks, self.claims, self.budgets)]
        for names in repeated:
            double = next((name for name in names if names.count(name) > 1), None)
            if double is not None:
                raise ValueError(f"{double} is there twice; names are given once")
        if self.reference is not None and self.reference not in arms:
            raise ValueError(f"the reference {self.reference!r} is no arm; choose one of {', '.join(arms)}")
        trained = [arm.name for arm in self.arms if isinstance(arm, TrainArm)]
        named = [(f"the claim {claim.name}", claim.arm, arms) for claim in self.claims]
        named += [(f"the claim {claim.name}", claim.against, arms) for claim in self.claims]
        named += [
            (f"the budget {one.name}", arm, arms)
            for one in self.budgets
            for arm in (*one.arms, *one.arm_overrides)
        ]
        for arm in self.arms:
            if isinstance(arm, MethodArm) and arm.of_arm is not None:
                named.append((arm.name, arm.of_arm, trained))
            named += [(arm.name, over, arms) for gain in arm.published_gains for over in gain.over]
            numbers: tuple[_Published, ...] = (*arm.published, *arm.published_gains)
            named += [(arm.name, score.data, data) for score in numbers]
        for what, name, known in named:
            if name not in known:
                kind = "no data set of the study" if known is data else "no arm"
                kind = "no arm that is trained" if known is trained else kind
                raise ValueError(f"{what} names {name!r}, which is {kind}; choose one of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _nnunet_can_be_trained(self) -> Self:
        nnunet = next((arm.name for arm in self.arms if isinstance(arm, NnunetArm)), None)
        if nnunet is not None and any(len(task.data) > 1 for task in self.tasks):
            raise ValueError(f"{nnunet}: nnU-Net is trained on one data set; give every data set its own task")
        if nnunet is not None and (self.folds, self.seeds) != ((0,), ()):
            raise ValueError(f"{nnunet}: nnU-Net is trained on fold 0, once; leave out folds and seeds")
        return self


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study, and where its file lies; other files that it names are relative to its folder."""

    study: Study
    path: Path
    budget: str = ""

    def with_budget(self, name: str) -> "StudyFile":
        """Return the study with one of its budgets; ConfigError for another name."""
        study = self.study
        budget = next((one for one in study.budgets if one.name == name), None)
        if budget is None:
            known = ", ".join(one.name for one in study.budgets) or "none"
            raise ConfigError(f"{self.path} has no budget {name!r}; it names {known}")
        own = budget.arm_overrides
        arms = [
            arm.model_copy(update={"overrides": (*arm.overrides, *budget.overrides, *own.get(arm.name, ()))})
            if isinstance(arm, TrainArm)
            else arm
            for arm in study.arms
            if arm.name in budget.arms
        ]
        less = study.model_dump() | {
            "title": f"{study.title}; budget {name}",
            "notes": (f"Budget {name}: {budget.reason}", *study.notes),
            "reference": study.reference if study.reference in budget.arms else None,
            "seeds": budget.seeds or study.seeds,
            "protocol": study.protocol.model_copy(update={"seeds": budget.users or study.protocol.seeds}),
            "arms": [arm.model_dump() for arm in arms],
            "claims": [one for one in study.claims if {one.arm, one.against} <= {*budget.arms}],
            "budgets": (),
        }
        return StudyFile(checked(Study, less, f"{self.path}: budget {name}"), self.path, name)

    def next_to(self, file: str | Path) -> Path:
        """Return a file that the study names."""
        return Path(os.path.normpath(self.path.parent / file))


def study_names() -> tuple[str, ...]:
    """Return the names of the studies in the package, sorted."""
    return tuple(sorted(path.stem for path in _STUDIES.glob("*.toml")))


def read_study(name_or_path: str) -> StudyFile:
    """Read a study of the package by its name, or one's own by its path; ConfigError naming the wrong key."""
    path = shipped_config(Path(name_or_path))
    if name_or_path in study_names():
        path = _STUDIES / f"{name_or_path}.toml"
    elif not path.is_file():
        raise ConfigError(
            f"there is no study {name_or_path!r}; give one of {', '.join(study_names())}, or a file"
        )
    content = read_toml(path)
    study = checked(Study, content, path)
    study.protocol.protocol()  # its mistakes show now, not after days of training
    return StudyFile(study, path)

"""What a reproduction is asked to do, and where everything of it lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from clickvol.errors import ConfigError
from clickvol.reproduction.study import Arm, DataSet, MethodArm, Study, StudyFile, Task, TrainArm

Form = Literal["released", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A study, its data, and a folder for what comes out.

    Attributes:
        raw: folder with the data sets as they come.
        folder: gets everything; absolute, since training files name their data.
        only: names of the arms to do; all where empty.
        form: "text" trains arms as the text of their paper says where the study has a file for that.
        steps: end every training after so many steps, for a rehearsal; None for the whole schedule.
        venv: nnU-Net's environment; without it nnU-Net is left out.
        splits: files with the cases of each part, by the name of the data set; before the study's own.
        workers: processes that prepare, load and save.
        records_only: take what `OUT/evaluations` holds as scored, whether or not data and models are there.
        fold: of the splits, which this is about.
        seed: of trainings, which this is about; None for the training files'.

    Raises:
        ConfigError: on construction, for a name that the study does not have.
    """

    file: StudyFile
    raw: Path
    folder: Path
    only: tuple[str, ...] = ()
    form: Form = "released"
    steps: int | None = None
    device: str = "auto"
    venv: Path | None = None
    splits: Mapping[str, Path] = field(default_factory=dict)
    workers: int = 1
    records_only: bool = False
    fold: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        for what, given, known in (
            ("arm", self.only, [arm.name for arm in self.study.arms]),
            ("data set", tuple(self.splits), [data.name for data in self.study.data]),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(f"the study has no {what} {name!r}; choose one of {', '.join(known)}")
        has_text = any(isinstance(arm, TrainArm) and arm.text_config for arm in self.study.arms)
        if self.form == "text" and not has_text:
            raise ConfigError(
                f"no arm of the study {self.study.name} has a training file for the text of its paper; leave "
                "out --as text, or give arms a text_config"
            )

    @property
    def study(self) -> Study:
        """What the study says."""
        return self.file.study

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Those to do now."""
        return tuple(arm for arm in self.study.arms if not self.only or arm.name in self.only)

    @property
    def repeated_arms(self) -> "tuple[tuple[Reproduction, Arm], ...]":
        """Every arm with every fold and seed in the order of the work, so that a claim is decided early.

        All folds of the first seed come before the second, and the arms of a claim before those of the next.
        The model that an arm asks in another way comes before it.
        """
        named = [name for claim in self.study.claims for name in (claim.arm, claim.against)]
        all_of = {arm.name: arm.of_arm for arm in self.study.arms if isinstance(arm, MethodArm)}
        first = [name for one in (*named, *all_of) for name in (all_of.get(one), one)] if named else []

        def place(pair: "tuple[Reproduction, Arm]") -> tuple[int, int]:
            job, arm = pair
            seed = 0 if job.seed is None else self.study.seeds.index(job.seed)
            return seed, first.index(arm.name) if arm.name in first else len(first)

        return tuple(sorted(((one, arm) for arm in self.arms for one in self.repeats(arm)), key=place))

    def repeats(self, arm: Arm) -> "tuple[Reproduction, ...]":
        """Return the job once for each fold and seed that an arm is trained or scored for."""
        needs_training = isinstance(arm, TrainArm) or (isinstance(arm, MethodArm) and arm.of_arm is not None)
        seeds = (self.study.seeds if needs_training else ()) or (None,)
        return tuple(replace(self, fold=fold, seed=seed) for fold in self.study.folds for seed in seeds)

    @property
    def which(self) -> str:
        """Fold and seed behind a name, "-fold2-seed1"; "" where the study has but one."""
        fold = f"-fold{self.fold}" if len(self.study.folds) > 1 else ""
        return fold if self.seed is None else f"{fold}-seed{self.seed}"

    @property
    def results(self) -> Path:
        """Folder of all that depends on how trainings are made: budgets, text, rehearsals have their own."""
        folder = self.folder / f"budget-{self.file.budget}" if self.file.budget else self.folder
        folder = folder if self.form == "released" else folder / "as-text"
        return folder if self.steps is None else folder / f"first-{self.steps}-steps"

    def source(self, data: DataSet) -> Path:
        """Return the folder of a data set as it comes."""
        return self.raw / data.folder

    def prepared(self, data: DataSet) -> Path:
        """Return the folder of a prepared data set."""
        return self.folder / "data" / data.name

    def run_folder(self, arm: Arm, task: Task) -> Path:
        """Return where an arm is trained."""
        name = arm.name if len(self.study.tasks) == 1 else f"{arm.name}-{task.name}"
        return self.results / "runs" / f"{name}{self.which}"

    def evaluation_folder(self, arm: Arm, task: Task) -> Path:
        """Return where an arm is scored: each by itself, so that one more changes nothing of the others."""
        return self.results / "evaluations" / task.name / f"{arm.name}{self.which}"

    def report_folder(self, task: Task) -> Path:
        """Return where all arms of a task are compared."""
        return self.results / "reports" / task.name

"""nnU-Net on a prepared data set: export, plan, train, predict, and its masks on the grids of the scans."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clickvol.bridges.nnunet_environment import NnunetEnvironment
from clickvol.bridges.nnunet_export import DATASET_ID, NnunetDataset, export_dataset
from clickvol.bridges.nnunet_trainer import TRAINER_NAME, install_trainer, length_variables
from clickvol.bridges.program import LoggedProgram, run_logged
from clickvol.datasets.prepared import LabelledCase, PreparedSet
from clickvol.errors import ClickvolError, ConfigError, DeviceError, ExternalProgramError
from clickvol.files.atomic import write_text
from clickvol.files.lock import only_process_in
from clickvol.io.formats import write_mask
from clickvol.io.mask_files import read_mask
from clickvol.io.volume import Mask

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
"""nnU-Net's plans that train in one stage; its cascade needs two and is left out."""

DEVICES = ("cpu", "cuda")

_ADVICE = (
    "the same command goes on from there; where memory was short, give a new folder and a smaller --memory-gb"
)


@dataclass(frozen=True, kw_only=True)
class NnunetSettings:
    """What makes nnU-Net's result; one output folder holds the result of one.

    Attributes:
        configuration: one of `CONFIGURATIONS`.
        epochs, iterations_per_epoch: length of the training; nnU-Net's own where not given.
        fold: of the prepared set.
        memory_gb: of the GPU that nnU-Net plans patch and batch for; its own 8 where None. Also the way
            to a patch that a CPU can train with.
        mirroring: predict every patch in all mirrored copies (eight in 3D) and average, as nnU-Net does.

    Raises:
        ConfigError: for a value that nnU-Net has no use for.
    """

    configuration: str = "3d_fullres"
    epochs: int = 1000
    iterations_per_epoch: int = 250
    fold: int = 0
    memory_gb: float | None = None
    mirroring: bool = True

    def __post_init__(self) -> None:
        if self.configuration not in CONFIGURATIONS:
            known = ", ".join(CONFIGURATIONS)
            raise ConfigError(f"nnU-Net's configuration {self.configuration!r} is not known; choose {known}")
        for name in ("epochs", "iterations_per_epoch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.memory_gb is not None and not 0 < self.memory_gb < float("inf"):
            raise ConfigError(f"memory_gb is {self.memory_gb}; it must be above 0, such as 4")

    @property
    def plans_name(self) -> str:
        """What nnU-Net calls its plans."""
        return "nnUNetPlans" if self.memory_gb is None else "nnUNetPlansMemory"


@dataclass(frozen=True, kw_only=True)
class NnunetRun:
    """One run: where it is, with what, and on which machine.

    Attributes:
        folder: gets everything; absolute.
        workers: processes that load and write scans.
        on_stage: gets the name of each stage when it begins, and the number of each epoch.
    """

    folder: Path
    environment: NnunetEnvironment
    settings: NnunetSettings
    device: str
    workers: int
    on_stage: Callable[[str], None] = lambda _stage: None

    @property
    def predictions(self) -> Path:
        """Folder of the masks, CASE.nii.gz, on the grids of the scans."""
        return self.folder / "predictions"

    @property
    def log(self) -> Path:
        """What nnU-Net said."""
        return self.folder / "nnunet.log"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that nnU-Net reads."""
        variables = {
            "nnUNet_raw": str(self.folder / "nnUNet_raw"),
            "nnUNet_preprocessed": str(self.folder / "nnUNet_preprocessed"),
            "nnUNet_results": str(self.folder / "nnUNet_results"),
            "nnUNet_n_proc_DA": str(self.workers),
            "nnUNet_def_n_proc": str(self.workers),
            **length_variables(self.settings.epochs, self.settings.iterations_per_epoch),
            "PATH": f"{self.environment.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        if self.device == "cpu":
            variables["nnUNet_compile"] = "f"  # costs minutes and gains nothing without a GPU
        return variables


def choose_nnunet_device(name: str | None, environment: NnunetEnvironment) -> str:
    """Return the device asked for, else a GPU where nnU-Net's torch sees one; DeviceError for another name."""
    if name is None:
        return "cuda" if environment.has_cuda else "cpu"
    if name not in DEVICES:
        raise DeviceError(f"nnU-Net runs on {' or '.join(DEVICES)}, not on {name!r}")
    if name == "cuda" and not environment.has_cuda:
        raise DeviceError(
            f"the torch {environment.torch_version} in {environment.folder} sees no GPU; use --device cpu"
        )
    return name


def run_nnunet(prepared: PreparedSet, run: NnunetRun) -> list[Path]:
    """Train nnU-Net on a fold of a prepared data set and predict its test part, in the order of the set.

    Every step whose output is complete is skipped, and a training that was stopped goes on from its last
    checkpoint.

    Raises:
        ConfigError: when the folder holds a run with other settings, or another process works in it; when the
            data do not suit; when nnU-Net plans no such configuration for them.
        ExternalProgramError: when a step of nnU-Net fails; it names the log.
        OutputError: when a file cannot be written.
    """
    with only_process_in(run.folder):
        _claim(run, prepared)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "predictions"):
            (run.folder / name).mkdir(exist_ok=True)
        run.on_stage("exporting the scans")
        dataset = export_dataset(
            prepared,
            run.folder / "nnUNet_raw",
            fold=run.settings.fold,
            on_case=lambda case_id: run.on_stage(f"exporting {case_id}"),
        )
        _plan(run, dataset)
        _train(run, dataset)
        _predict(run, dataset)
        cases = prepared.part("test", fold=run.settings.fold)
        return [_resample_to_native(run, case) for case in cases]


def plan_words(run: NnunetRun) -> tuple[str, ...]:
    """Return the command that plans and preprocesses."""
    settings, workers = run.settings, str(run.workers)
    memory: tuple[str, ...] = ()
    if settings.memory_gb is not None:
        name = ("-overwrite_plans_name", settings.plans_name)
        memory = ("-gpu_memory_target", f"{settings.memory_gb:g}", *name)
    return (
        *(run.environment.program("nnUNetv2_plan_and_preprocess"), "-d", str(DATASET_ID)),
        *("-c", settings.configuration, "-npfp", workers, "-np", workers),
        *("--verify_dataset_integrity", "--clean", "--no_pbar"),
        *memory,
    )


def train_words(run: NnunetRun, *, resume: bool) -> tuple[str, ...]:
    """Return the command that trains; its fold 0 is the only one that was exported."""
    settings = run.settings
    return (
        *(run.environment.program("nnUNetv2_train"), str(DATASET_ID), settings.configuration, "0"),
        *("-tr", TRAINER_NAME, "-p", settings.plans_name, "-device", run.device),
        *(("--c",) if resume else ()),
    )


def predict_words(run: NnunetRun, dataset: NnunetDataset) -> tuple[str, ...]:
    """Return the command that predicts the test scans."""
    settings, workers = run.settings, str(run.workers)
    return (
        *(run.environment.program("nnUNetv2_predict"), "-d", str(DATASET_ID), "-f", "0"),
        *("-i", str(dataset.folder / "imagesTs"), "-o", str(_raw_predictions(run))),
        *("-c", settings.configuration, "-tr", TRAINER_NAME, "-p", settings.plans_name),
        *("-device", run.device, "-npp", workers, "-nps", workers),
        *("--continue_prediction", "--disable_progress_bar"),
        *(() if settings.mirroring else ("--disable_tta",)),
    )


def _claim(run: NnunetRun, prepared: PreparedSet) -> None:
    """Write down what this folder is for, or refuse another purpose than the one it has."""
    wanted = {
        "data": prepared.name,
        "data_hash": prepared.content_hash,
        "nnunetv2": run.environment.nnunet_version,
        **dataclasses.asdict(run.settings),
    }
    path = run.folder / "run.json"
    if path.is_file():
        try:
            noted = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ConfigError(f"{path} is damaged; give another folder") from error
        other = sorted(name for name in wanted if noted.get(name) != wanted[name])
        if other:
            name = other[0]
            raise ConfigError(
                f"{run.folder} holds a run with {name} {noted.get(name)!r}, not {wanted[name]!r}; "
                "give another folder, or the settings of that run"
            )
        return
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def _plan(run: NnunetRun, dataset: NnunetDataset) -> None:
    done = run.folder / "planned.json"
    if done.is_file():
        return
    run.on_stage("planning and preprocessing")
    _run(run, "nnU-Net's planning", plan_words(run))
    folder = run.folder / "nnUNet_preprocessed" / dataset.name
    plans = _read_plans(folder / f"{run.settings.plans_name}.json")
    if run.settings.configuration not in plans:
        raise ConfigError(
            f"nnU-Net plans no {run.settings.configuration} for these scans, only "
            f"{', '.join(sorted(plans))}; choose one of those and a new folder"
        )
    write_text(folder / "splits_final.json", json.dumps(dataset.splits, indent=2) + "\n")
    plan = plans[run.settings.configuration]
    facts = {name: plan.get(name) for name in ("spacing", "patch_size", "batch_size")}
    write_text(done, json.dumps(facts, indent=2) + "\n")


def _read_plans(path: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["configurations"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExternalProgramError(f"nnU-Net's planning left no usable {path}; {_ADVICE}") from error


def _train(run: NnunetRun, dataset: NnunetDataset) -> None:
    settings = run.settings
    kind = f"{TRAINER_NAME}__{settings.plans_name}__{settings.configuration}"
    folder = run.folder / "nnUNet_results" / dataset.name / kind / "fold_0"
    final = folder / "checkpoint_final.pth"
    if final.is_file():
        return
    install_trainer(run.environment.package)
    run.on_stage("training")

    def on_line(line: str) -> None:
        epoch = re.search(r"\bEpoch (\d+)$", line)
        if epoch:
            run.on_stage(f"training, epoch {int(epoch[1]) + 1} of {settings.epochs}")

    resume = any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best"))
    _run(run, "nnU-Net's training", train_words(run, resume=resume), on_line)
    if not final.is_file():
        raise ExternalProgramError(f"nnU-Net's training ended without {final}; see {run.log}; {_ADVICE}")


def _predict(run: NnunetRun, dataset: NnunetDataset) -> None:
    missing = [i for i in dataset.test_ids if not (run.predictions / f"{i}.nii.gz").is_file()]
    if not missing:
        return
    for case_id in missing:
        _drop_if_unreadable(_raw_predictions(run) / f"{case_id}.nii.gz")
    run.on_stage("predicting the test scans")
    _run(run, "nnU-Net's prediction", predict_words(run, dataset))


def _drop_if_unreadable(path: Path) -> None:
    """Remove a mask that a killed process left half written, which nnU-Net would take for done."""
    try:
        read_mask(path)
    except ClickvolError:
        path.unlink(missing_ok=True)


def _resample_to_native(run: NnunetRun, case: LabelledCase) -> Path:
    """Write nnU-Net's mask of a scan on exactly the scan's grid, unless that is done."""
    target = run.predictions / f"{case.case_id}.nii.gz"
    if target.is_file():
        return target
    source = _raw_predictions(run) / target.name
    if not source.is_file():
        raise ExternalProgramError(f"nnU-Net predicted no {source.name}; see {run.log}; {_ADVICE}")
    predicted, (scan, _) = read_mask(source), case.read_native()
    advice = "ITK cannot hold that scan's grid"
    predicted.grid.check_same_place(scan.grid, f"nnU-Net's mask {source}", ExternalProgramError, advice)
    write_mask(Mask(array=predicted.array, grid=scan.grid), target)
    return target


def _raw_predictions(run: NnunetRun) -> Path:
    return run.folder / "nnUNet_predictions"


def _run(
    run: NnunetRun, name: str, words: tuple[str, ...], on_line: Callable[[str], None] = lambda _line: None
) -> None:
    program = LoggedProgram(name=name, words=words, variables=run.variables, log=run.log, advice=_ADVICE)
    run_logged(program, on_line)

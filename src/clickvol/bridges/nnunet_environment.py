"""nnU-Net's own virtual environment: made beside ours, checked before every use, never mixed with ours.

nnU-Net brings some eighty packages, one of which replaces torch where it is not held fast. So nothing of
it is ever installed into the environment that runs this package.
"""

import contextlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickvol.bridges.program import LoggedProgram, ask_program, run_logged
from clickvol.errors import ConfigError, ExternalProgramError
from clickvol.files.atomic import make_folder

NNUNET_VERSION = "2.8.1"
"""The version this bridge is written for and was run with; the newest in November 2026."""

_MODULES = ("nnunetv2.run.run_training", "nnunetv2.inference.predict_from_raw_data")
"""What training and prediction import; their absence shows a broken installation."""

_QUESTION = (
    "import importlib.metadata as m, importlib.util as u, json, torch; "
    "print(json.dumps({'nnunet': m.version('nnunetv2'), 'torch': m.version('torch'), "
    "'cuda': torch.cuda.is_available(), "
    "'package': u.find_spec('nnunetv2').submodule_search_locations[0]}))"
)


@dataclass(frozen=True, kw_only=True)
class NnunetEnvironment:
    """A virtual environment that holds nnU-Net: its folder, that of nnunetv2, and what is installed there."""

    folder: Path
    package: Path
    nnunet_version: str
    torch_version: str
    has_cuda: bool

    def program(self, name: str) -> str:
        """Return the path of one of its programs, "nnUNetv2_train"."""
        return str(self.folder / "bin" / name)


def check_environment(folder: Path) -> NnunetEnvironment:
    """Return what an environment holds.

    Raises:
        ConfigError: when it is no environment, is ours, or holds another nnU-Net than `NNUNET_VERSION`.
        ExternalProgramError: when its Python or its torch does not run.
    """
    advice = f"make it with clickvol nnunet setup --venv {folder}"
    _refuse_ours(folder)
    if not (folder / "bin" / "python").exists():
        raise ConfigError(f"{folder} is not a virtual environment; {advice}")
    answer = ask_program((str(folder / "bin" / "python"), "-c", _QUESTION), advice)
    try:
        facts = json.loads(answer.strip().splitlines()[-1])
        environment = NnunetEnvironment(
            folder=folder.absolute(),
            package=Path(facts["package"]),
            nnunet_version=str(facts["nnunet"]),
            torch_version=str(facts["torch"]),
            has_cuda=bool(facts["cuda"]),
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ConfigError(f"the Python in {folder} does not say what it holds; {advice}") from error
    if environment.nnunet_version != NNUNET_VERSION:
        raise ConfigError(
            f"{folder} holds nnunetv2 {environment.nnunet_version}, but this bridge is written for "
            f"{NNUNET_VERSION}; {advice}"
        )
    return environment


def make_environment(
    folder: Path,
    *,
    python: str | None = None,
    pip_arguments: Sequence[str] = (),
    offline: bool = False,
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> NnunetEnvironment:
    """Make a virtual environment with nnU-Net, or finish one; an environment that is right stays.

    torch is held at the version that runs this package, because pip would otherwise replace it by the newest
    that torchvision, which nnU-Net's dependencies ask for, goes with. A requirement among the arguments of pip,
    such as "torch==2.8.0", takes the place of ours. Offline, pip reaches only what `--find-links` among them
    names.

    Raises:
        ConfigError: when the folder holds something else or is our environment, or there is no such
            interpreter.
        ExternalProgramError: when venv or pip fails, or what they made does not run.
    """
    _refuse_ours(folder)
    on_stage("looking at what is there")
    with contextlib.suppress(ConfigError, ExternalProgramError):  # missing, unfinished, too old
        return check_environment(folder)
    log = folder / "clickvol-setup.log"
    _refuse_other_content(folder, log)
    interpreter = shutil.which(python or sys.executable)
    if interpreter is None:
        raise ConfigError(f"there is no Python {python!r}; give --python the path of an interpreter")
    advice = "correct that and give the same command again"
    make_folder(folder, "give --venv another folder")
    if not (folder / "bin" / "pip").exists():
        on_stage("making the environment")
        _run("making the environment", (interpreter, "-m", "venv", str(folder)), log, advice)
    on_stage("installing nnU-Net (about 2 GB, some minutes)")
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check")
    closed = ("--no-index",) if offline else ()
    _run("pip", (*pip, *closed, *_requirements(pip_arguments), *pip_arguments), log, advice)
    on_stage("trying it out")
    tried = "; ".join(f"import {module}" for module in _MODULES)
    _run("importing nnU-Net", (str(folder / "bin" / "python"), "-c", tried), log, advice)
    return check_environment(folder)


def _requirements(pip_arguments: Sequence[str]) -> tuple[str, ...]:
    torch_version = importlib.metadata.version("torch").split("+", maxsplit=1)[0]
    given = {argument.split("==", maxsplit=1)[0] for argument in pip_arguments if "==" in argument}
    wanted = {"torch": f"torch=={torch_version}", "nnunetv2": f"nnunetv2=={NNUNET_VERSION}"}
    return tuple(line for name, line in wanted.items() if name not in given)


def _run(name: str, words: tuple[str, ...], log: Path, advice: str) -> None:
    run_logged(LoggedProgram(name=name, words=words, variables={}, log=log, advice=advice))


def _refuse_ours(folder: Path) -> None:
    if sys.platform == "win32":
        raise ConfigError("the bridge to nnU-Net runs on Linux and macOS; use WSL on Windows")
    ours, asked = Path(sys.prefix).resolve(), folder.resolve()
    if asked == ours or ours in asked.parents or asked in ours.parents:
        raise ConfigError(
            f"{folder} is, holds or lies in the environment that runs clickvol; nnU-Net needs one of "
            "its own, so give another folder"
        )


def _refuse_other_content(folder: Path, log: Path) -> None:
    """Refuse what this command did not make, which is what has no log of it."""
    if log.is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds something else than nnunetv2 {NNUNET_VERSION} and is not touched; give "
            "--venv a new folder"
        )

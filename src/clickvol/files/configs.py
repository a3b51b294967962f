"""The training and study files that ship: `configs/` of a checkout, `clickvol/configs` of a wheel."""

import shutil
from pathlib import Path

from clickvol.errors import OutputError

_PACKAGE = Path(__file__).parents[1]
CONFIGS_FOLDER = next(
    (folder for folder in (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs") if folder.is_dir()),
    _PACKAGE / "configs",
)


def shipped_config(path: Path) -> Path:
    """Return a path as it is, or the shipped file for a `configs/...` that the working folder does not have."""
    shipped = CONFIGS_FOLDER.joinpath(*path.parts[1:])
    return shipped if path.parts[:1] == ("configs",) and not path.exists() and shipped.is_file() else path


def list_configs() -> dict[str, str]:
    """Return `configs/...` of every shipped TOML file, sorted, with the first line of its comment, or ""."""
    first_lines = {
        path.relative_to(CONFIGS_FOLDER): path.read_text(encoding="utf-8").partition("\n")[0]
        for path in sorted(CONFIGS_FOLDER.rglob("*.toml"))
    }
    return {
        f"configs/{name.as_posix()}": line.removeprefix("# ") if line.startswith("#") else ""
        for name, line in first_lines.items()
    }


def copy_configs(folder: Path) -> None:
    """Copy all of them into a new folder.

    Raises:
        OutputError: when the folder exists, so that no changed file is lost, or cannot be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists, and may hold files of yours; name a new folder")
    try:
        shutil.copytree(CONFIGS_FOLDER, folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another place") from error

"""A training configuration from a TOML file and the command line."""

import tomllib
from pathlib import Path
from typing import Any

from clickvol.errors import ConfigError
from clickvol.files.validation import checked, read_toml
from clickvol.training.config import TrainConfig


def read_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a TOML file and apply "section.field=value" overrides (values as in TOML, or bare words).

    A file may begin with `extends = "other.toml"`, relative to itself: it then says only what differs from the
    other one.

    Raises:
        ConfigError: when a file is missing or not TOML, or a value is wrong; the field is named.
    """
    content = _read_content(path, seen=())
    for override in overrides:
        _apply(content, override)
    return checked(TrainConfig, content, path)


def _read_content(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return what a file says, laid over the file that it extends."""
    if not path.is_file():
        raise ConfigError(f"the configuration {path} does not exist")
    if path.resolve() in seen:
        raise ConfigError(f"{path} extends itself by way of other files; take one `extends` out")
    content = read_toml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    return _laid_over(_read_content(path.parent / str(base), (*seen, path.resolve())), content)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above`; sections are joined, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            # Another way to sample has other keys.
            is_other_kind = value.get("kind", old.get("kind")) != old.get("kind")
            merged[key] = value if is_other_kind else _laid_over(old, value)
        else:
            merged[key] = value
    return merged


def _apply(content: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set takes section.field=value, not {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = content
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    section[keys[-1]] = value

"""A training configuration from a TOML file and the command line."""

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clickvol.errors import ConfigError
from clickvol.training.config import TrainConfig


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
        msg = f"{path}: {_explained(error)}"
        raise ConfigError(msg) from error


def _explained(error: ValidationError) -> str:
    """Return the first mistake in one line; for an unknown key with the keys that there are."""
    first = error.errors()[0]
    written, section = _follow([str(part) for part in first["loc"]])
    where = ".".join(written)
    if first["type"] == "extra_forbidden":
        return f"{where} is not known; known here are {', '.join(sorted(section.model_fields))}"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _follow(place: list[str]) -> tuple[list[str], type[BaseModel]]:
    """Return a place as somebody would write it, and the section that its last key stands in.

    Between the keys, pydantic names the kind that it took of a section that has several.
    """
    section: type[BaseModel] = TrainConfig
    kinds: list[type[BaseModel]] = []
    written: list[str] = []
    for key in place:
        chosen = [kind for kind in kinds if key in get_args(kind.model_fields["kind"].annotation)]
        kinds = []
        if chosen:
            section = chosen[0]
            continue
        written.append(key)
        if key not in section.model_fields:
            continue
        found = _sections(section.model_fields[key].annotation)
        if len(found) == 1:
            section = found[0]
        kinds = found if len(found) > 1 else []
    return written, section


def _sections(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401  # any type there is
    """Return the sections that a field can hold, in whatever container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


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

"""A training configuration from a TOML file and the command line."""

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clickvol.errors import ConfigError
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
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explained(error)}") from error


def _read_content(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return what a file says, laid over the file that it extends."""
    if not path.is_file():
        raise ConfigError(f"the configuration {path} does not exist")
    if path.resolve() in seen:
        raise ConfigError(f"{path} extends itself by way of other files; take one `extends` out")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
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
        choices = _sections(section.model_fields[key].annotation)
        if len(choices) == 1:
            section = choices[0]
        kinds = choices if len(choices) > 1 else []
    return written, section


def _sections(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401  # any type there is
    """Return the sections that a field can hold, in whatever container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


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

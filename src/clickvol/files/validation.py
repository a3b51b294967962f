"""What pydantic says of a file, in one line: where the first mistake is, and which keys there are."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from clickvol.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; ConfigError when it is missing or none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def checked(form: type[ModelT], content: object, source: str | Path) -> ModelT:
    """Return what a file holds as a model; ConfigError naming the key that is wrong, and those there are."""
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explained(error, form)}") from error


def first_fault(error: ValidationError, otherwise: str = "content") -> str:
    """Return the first mistake as "where: what"; `otherwise` stands for where that is the whole."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or otherwise}: {first['msg'].removeprefix('Value error, ')}"


def _explained(error: ValidationError, form: type[BaseModel]) -> str:
    first = error.errors()[0]
    written, section = _follow([str(part) for part in first["loc"]], form)
    where = ".".join(written)
    if first["type"] == "extra_forbidden":
        return f"{where} is not known; known here are {', '.join(sorted(section.model_fields))}"
    what: str = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _follow(place: list[str], section: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Return a place as somebody would write it, and the section that its last key stands in.

    Between the keys, pydantic names the kind that it took of a section that has several.
    """
    kinds: list[type[BaseModel]] = []
    written: list[str] = []
    for key in place:
        if key.isdecimal():  # of a list
            written.append(key)
            continue
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

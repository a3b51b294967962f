"""The page of the configuration files: every field of the models that read them."""

import re
import typing
from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from clickvol.reproduction.study import Study
from clickvol.training.config import TrainConfig
from clickvol.weights.card import ModelCard

_PAGES: dict[str, tuple[type[BaseModel], str]] = {
    "Training file": (TrainConfig, "Of `clickvol train` (TOML). `--set SECTION.FIELD=VALUE` changes a field."),
    "Study": (Study, "Of `clickvol reproduce` (TOML)."),
    "Model card": (ModelCard, "Beside the weights of every model (JSON)."),
}


def configuration_page() -> str:
    """Return the page."""
    parts = [
        "# Configuration",
        "What has no default must be given; a field that is not listed is refused.",
    ]
    for title, (model, text) in _PAGES.items():
        parts += [f"## {title}", text]
        for name, section in _sections(model, "").items():
            heading = [f"### `{name}`"] if name else []
            parts += [*heading, _summary(section), _table(section)]
    return "\n\n".join(parts) + "\n"


def _sections(model: type[BaseModel], path: str) -> dict[str, type[BaseModel]]:
    """Return the models below a model by where they stand in the file, the model itself first."""
    sections = {path: model}
    for name, field in model.model_fields.items():
        inner = f"{path}.{name}" if path else name
        models = _models_in(field.annotation)
        for one in models:
            kind = f" ({one.__name__})" if len(models) > 1 else ""
            sections |= _sections(one, f"{inner}{kind}")
    return sections


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _summary(model: type[BaseModel]) -> str:
    return (getdoc(model) or "").split("\nAttributes:")[0].split("\nRaises:")[0].strip()


def _table(model: type[BaseModel]) -> str:
    described = _described(getdoc(model) or "")
    rows = ["| field | is | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "**must be given**" if field.is_required() else f"`{_default(field)}`"
        kind = _cell(_kind(field.annotation))
        rows.append(f"| `{name}` | `{kind}` | {_cell(default)} | {_cell(described.get(name, ''))} |")
    return "\n".join(rows)


def _described(text: str) -> dict[str, str]:
    """Return what a docstring says of every attribute; `a, b: text` is said of both."""
    _, _, attributes = text.partition("Attributes:\n")
    attributes = attributes.split("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE)
    return {name.strip(): " ".join(said.split()) for names, said in entries for name in names.split(",")}


def _default(field: Any) -> str:
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    return "see below" if isinstance(value, BaseModel) else ("none" if value is None else str(value) or '""')


def _kind(annotation: Any) -> str:
    """Return an annotation in words: what may stand in the file."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in arguments)
    if not arguments:
        names = {type(None): "none", **dict.fromkeys(_models_in(annotation), "section")}
        return str(names.get(annotation, getattr(annotation, "__name__", annotation)))
    if hasattr(annotation, "__metadata__"):
        return _kind(arguments[0])
    inner = [_kind(argument) for argument in arguments if argument is not Ellipsis]
    origin = typing.get_origin(annotation)
    if origin in (list, tuple, set, frozenset, dict):
        return f"{origin.__name__} of {', '.join(dict.fromkeys(inner))}"
    return " or ".join(kind for kind in dict.fromkeys(inner) if kind != "none")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

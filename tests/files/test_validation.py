from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clickvol.errors import ConfigError
from clickvol.files.validation import checked, first_fault, read_toml


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Ball(_Part):
    kind: Literal["ball"]
    radius_mm: float


class Box(_Part):
    kind: Literal["box"]
    side_mm: float


class Whole(_Part):
    name: str
    parts: list[Annotated[Ball | Box, Field(discriminator="kind")]] = []
    first: Ball | None = None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a.toml: name: Field required"),
        ({"name": "n", "sise": 1}, "a.toml: sise is not known; known here are first, name, parts"),
        (
            {"name": "n", "parts": [{"kind": "ball", "radius_mm": 1}, {"kind": "box", "radius_mm": 1}]},
            "a.toml: parts.1.side_mm: Field required",
        ),
        (
            {"name": "n", "parts": [{"kind": "box", "side_mm": 1, "radius_mm": 1}]},
            "a.toml: parts.0.radius_mm is not known; known here are kind, side_mm",
        ),
        (
            {"name": "n", "first": {"kind": "ball", "radius_mm": 1, "side_mm": 2}},
            "a.toml: first.side_mm is not known; known here are kind, radius_mm",
        ),
    ],
)
def test_the_first_mistake_is_named_by_its_place(content, message):
    with pytest.raises(ConfigError) as caught:
        checked(Whole, content, Path("a.toml"))
    assert str(caught.value) == message


def test_what_is_right_comes_back():
    assert checked(Whole, {"name": "n"}, Path("a.toml")) == Whole(name="n")


@pytest.mark.parametrize(("content", "said"), [(b'{"name": 1}', "name: "), (b"[", "the file: ")])
def test_a_fault_says_where_it_is(content, said):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Whole).validate_json(content)
    assert first_fault(caught.value, "the file").startswith(said)


def test_a_toml_file_is_read_and_one_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("a = [1, 2]")
    assert read_toml(path) == {"a": [1, 2]}
    path.write_text("a = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.toml"):
        read_toml(tmp_path / "missing.toml")

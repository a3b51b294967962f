"""Where fetched weights lie: in the folder CLICKVOL_CACHE names, else in the system's usual one for caches.

    CACHE/originals/<file name>   as published, verified
    CACHE/models/<id>/            card and safetensors made from it

The environment is read here and nowhere else. Torch-free.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from platformdirs import user_cache_path

from clickvol.errors import ConfigError, ModelNotFoundError, OutputError
from clickvol.weights.registry import PLAIN_NAME, KnownFile, PackageSource, RegistryEntry, UrlSource

CACHE_VARIABLE = "CLICKVOL_CACHE"
OFFLINE_VARIABLE = "CLICKVOL_OFFLINE"

BLOCK_BYTES = 1 << 20
"""What is read at once: large enough that Python's part in hashing does not show."""

# A disk that is filled to the last byte stops other programs. Chosen, not measured.
_SPARE_BYTES = 64 << 20


def cached_original(file_name: str) -> Path:
    """Return where the published file of a plain name lies or will lie; ModelNotFoundError for another name."""
    return _cache_folder() / "originals" / _plain(file_name)


def cached_model_folder(entry_id: str) -> Path:
    """Return the folder of an entry's card and safetensors; ModelNotFoundError when the id is no plain name."""
    return _cache_folder() / "models" / _plain(entry_id)


def is_cached(entry: RegistryEntry) -> bool:
    """Return whether an entry's original or what was made from it is in the cache; nothing is hashed."""
    folder = cached_model_folder(entry.id)
    if folder.is_dir() and any(folder.iterdir()):
        return True
    if not isinstance(entry.source, UrlSource | PackageSource):
        return False
    original = cached_original(entry.source.original.name)
    return original.is_file() and original.stat().st_size == entry.source.original.bytes


def is_offline() -> bool:
    """Return whether the environment forbids the network: anything but nothing, 0, false, no and off does."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def require_space(folder: Path, num_bytes: int) -> None:
    """Check that so many bytes fit on the disk of a folder and a little stays free, else OutputError."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise OutputError(
            f"{num_bytes / 1e6:.0f} MB are to be written to {folder}, but its disk has "
            f"{free / 1e6:.0f} MB free; make room or set {CACHE_VARIABLE} to another disk"
        )


def is_intact(path: Path, known: KnownFile) -> bool:
    """Return whether a file has the right length and hash; OutputError where it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size != known.bytes:
            return False
        return sha256_of_file(path) == known.sha256
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; make it readable or remove it") from error


def sha256_of_file(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cache_folder() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE, "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        return user_cache_path("clickvol", appauthor=False, opinion=False)
    except RuntimeError as error:
        raise ConfigError(
            f"this user has no home folder to keep weights in; set {CACHE_VARIABLE} to a folder"
        ) from error


def _plain(name: str) -> str:
    if not re.fullmatch(PLAIN_NAME, name):
        raise ModelNotFoundError(
            f"{name!r} is no name of weights: letters, digits, dots, dashes and underscores are"
        )
    return name

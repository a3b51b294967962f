"""The scans that a request may name or bring: those under the allowed root, and uploads. Torch-free."""

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message

from clickvol.io.input_path import suffix_of
from clickvol.server.refusal import RefusedError, storage_refusal

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
"""Files that hold a whole scan. Headers whose voxels lie in another file (.nhdr, .mhd) are refused: they
could name any file of this machine."""


def body_schema(field: str, named: type[BaseModel] | None = None, **texts: dict[str, object]) -> dict[str, Any]:
    """Return for the OpenAPI document: a form with a file and texts, or JSON that names one under the root."""
    form = {"type": "object", "properties": {field: {"type": "string", "format": "binary"}, **texts}}
    content: dict[str, object] = {"multipart/form-data": {"schema": form | {"required": [field]}}}
    if named is not None:
        content["application/json"] = {"schema": named.model_json_schema()}
    return {"requestBody": {"required": True, "content": content}}


def is_form(request: Request) -> bool:
    """Tell whether the body of a request is a multipart form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


_OUTSIDE = "this path is not under the folder that the server was given; give one of a scan in it"

_CHUNK_BYTES = 1 << 20
_MAX_FIELDS = 16
_MAX_BOUNDARY_BYTES = 70  # RFC 2046, 5.1.1
_FIRST_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=?-]{1,70})\r\n")
_MAX_FIELD_BYTES = 1 << 18


MASK_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
"""Files that hold masks."""


def scan_suffix(name: str, suffixes: tuple[str, ...] = SCAN_SUFFIXES) -> str:
    """Return the suffix of a file's name, in lower case; RefusedError 415 when it is none of those."""
    suffix = suffix_of(name, suffixes)
    if suffix is None:
        what = "masks" if suffixes == MASK_SUFFIXES else "a scan"
        raise RefusedError(415, f"this is no file of {what}; give one that ends with {', '.join(suffixes)}")
    return suffix


def find_under_root(root: Path | None, text: str, suffixes: tuple[str, ...] = SCAN_SUFFIXES) -> Path:
    """Return the scan that a request names, relative to the root, or absolute and under it.

    Links are followed before anything is compared, those inside a DICOM folder too. RefusedError 403 when it
    lies elsewhere or there is no root, 404 when there is nothing, 415 when it is no scan.
    """
    if root is None:
        raise RefusedError(403, "this server opens no files by path; upload the scan, or start it with --root")
    try:
        base = Path(os.path.realpath(root))
        place = Path(os.path.realpath(base / text))
        if place != base and base not in place.parents:
            raise RefusedError(403, _OUTSIDE)
        if place.is_dir():
            _check_folder(base, place)
            return place
        if not place.is_file():
            raise RefusedError(
                404, "there is no such scan under the folder that the server was given; check the path"
            )
    except (OSError, ValueError) as error:  # too long, a loop of links, a null byte
        raise RefusedError(404, "this cannot be the path of a scan; check it") from error
    scan_suffix(place.name, suffixes)
    return place


def _check_folder(base: Path, folder: Path) -> None:
    """Refuse a folder with links that lead out of the root."""
    for parent, names, files in os.walk(folder):
        for name in (*names, *files):
            entry = Path(parent) / name
            if entry.is_symlink() and base not in Path(os.path.realpath(entry)).parents:
                raise RefusedError(403, _OUTSIDE)


@contextlib.asynccontextmanager
async def read_form(request: Request, *, max_files: int = 1) -> AsyncIterator[FormData]:
    """Lend a multipart form, whose files go to nameless files on disk; RefusedError 507 when that is full."""
    request = await _with_true_boundary(request)
    try:
        form = await request.form(max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES)
    except OSError as error:
        raise storage_refusal(error) from error
    try:
        yield form
    finally:
        await form.close()


async def _with_true_boundary(request: Request) -> Request:
    """Return a request whose header names the boundary that its body has.

    3D Slicer's client for MONAI Label, once it has a token, sends the boundary of its last request with the
    body of the next one.
    """
    start, messages = b"", []
    while b"\n" not in start and len(start) <= _MAX_BOUNDARY_BYTES:
        message = await request.receive()
        messages.append(message)
        start += message.get("body", b"")
        if not message.get("more_body"):
            break

    async def receive() -> Message:
        return messages.pop(0) if messages else await request.receive()

    first = _FIRST_LINE.match(start)
    said = request.headers.get("content-type", "").encode("latin-1")
    headers = request.scope["headers"]
    if first is not None and said.lower().startswith(b"multipart/form-data") and first[1] not in said:
        headers = [pair for pair in headers if pair[0] != b"content-type"]
        headers.append((b"content-type", b'multipart/form-data; boundary="' + first[1] + b'"'))
    return Request({**request.scope, "headers": headers}, receive)


def uploaded(form: FormData, *names: str) -> UploadFile:
    """Return the file of a form under the first of some names; RefusedError 422 when there is none."""
    for name in names:
        value = form.get(name)
        if isinstance(value, UploadFile):
            return value
    raise RefusedError(422, f"there is no file in the request; send the scan in the form field {names[0]!r}")


def text_field(form: FormData, name: str) -> str | None:
    """Return a text of a form; None where it is missing or empty."""
    value = form.get(name)
    return value if isinstance(value, str) and value else None


def store(file: UploadFile, folder: Path, stem: str, suffixes: tuple[str, ...] = SCAN_SUFFIXES) -> Path:
    """Write an uploaded file under a name of our own, as its own could be a patient's; 415 for its suffix."""
    place = folder / f"{stem}{scan_suffix(file.filename or '', suffixes)}"
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            file.file.seek(0)
            shutil.copyfileobj(file.file, target, _CHUNK_BYTES)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return place

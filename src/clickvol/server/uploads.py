"""Scans that come with a request."""

import os
import shutil
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from clickvol.server.paths import scan_suffix
from clickvol.server.refusal import RefusedError, storage_refusal

_CHUNK_BYTES = 1 << 20
_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 1 << 18


async def read_form(request: Request, *, max_files: int = 1) -> FormData:
    """Read a multipart form, whose files go to nameless files on disk as they arrive.

    Args:
        request: with a body that nobody has read.
        max_files: more are refused.

    Raises:
        RefusedError: 507 when the disk is full.
        HTTPException: when it is no form, or too long.
    """
    try:
        return await request.form(max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES)
    except OSError as error:
        raise storage_refusal(error) from error


def uploaded(form: FormData, *names: str) -> UploadFile:
    """Return the file of a form.

    Args:
        form: as read.
        names: under which the file may come.

    Raises:
        RefusedError: 422 when there is none.
    """
    for name in names:
        value = form.get(name)
        if isinstance(value, UploadFile):
            return value
    raise RefusedError(422, f"there is no file in the request; send the scan in the form field {names[0]!r}")


def text_field(form: FormData, name: str) -> str | None:
    """Return a text of a form; None where it is missing or empty."""
    value = form.get(name)
    return value if isinstance(value, str) and value else None


def store(file: UploadFile, folder: Path, stem: str) -> Path:
    """Write an uploaded file into a private folder, under a name of our own.

    Args:
        file: only the suffix of its name is kept; the name could be a patient's.
        folder: of the session.
        stem: of the new name.

    Raises:
        RefusedError: 415 for a suffix that cannot be read.
        OSError: when the disk refuses; nothing is left then.
    """
    place = folder / f"{stem}{scan_suffix(file.filename or '')}"
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            file.file.seek(0)
            shutil.copyfileobj(file.file, target, _CHUNK_BYTES)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return place

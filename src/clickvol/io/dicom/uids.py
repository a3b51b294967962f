"""Unique identifiers of DICOM, of the form that needs no registration: 2.25 and a UUID (PS3.5, B.2)."""

import hashlib
import uuid

_STANDARD_ROOT = "1.2.840.10008."


def new_uid() -> str:
    """Return an identifier that nothing else has."""
    return f"2.25.{uuid.uuid4().int}"


def hashed_uid(text: str) -> str:
    """Return the identifier that belongs to a text: always the same, and not leading back to the text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def remapped_uid(uid: str) -> str:
    """Return what a de-identified file calls something; what the standard itself names keeps its name.

    The same identifier becomes the same other one in every file and on every machine, so that files that
    belonged together still do. There is no key: whoever has the original can find out what became of it.
    """
    return uid if uid.startswith(_STANDARD_ROOT) else hashed_uid(f"de-identified {uid}")

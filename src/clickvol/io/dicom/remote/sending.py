"""DICOM files to an archive that takes them by C-STORE."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clickvol.errors import ArchiveError, ConfigError, require

OWN_TITLE = "CLICKVOL"

_TIMEOUT_SECONDS = 60
# PS3.5, table 6.2-1: 16 characters, no backslash, no control characters; spaces around do not count.
_NODE = re.compile(r"(?P<title>[!-?A-\[\]-~ ]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s@/]+):(?P<port>\d{1,5})")
_WARNINGS = range(0xB000, 0xC000)


@dataclass(frozen=True, slots=True)
class DicomNode:
    """Who takes files: application entity title, host and port."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return a node from AET@HOST:PORT; ConfigError when it is not of that form."""
        match = _NODE.fullmatch(text.strip())
        if match is None or not 0 < int(match["port"]) < 1 << 16 or not match["title"].strip():
            raise ConfigError(
                f"{text!r} says not whom to send to; give AET@HOST:PORT, as ARCHIVE@pacs.local:104"
            )
        return cls(match["title"].strip(), match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def send_files(paths: Sequence[Path], node: DicomNode) -> None:
    """Send DICOM files as they are stored, unencrypted, to a node that knows us as CLICKVOL.

    ArchiveError when it cannot be reached, or does not take them.
    """
    require("pynetdicom", extra="archive", purpose="sending to an archive", error=ArchiveError)
    import pydicom
    from pynetdicom import AE, evt
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    files = [pydicom.dcmread(path) for path in paths]
    entity = AE(ae_title=OWN_TITLE)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_SECONDS
    entity.connection_timeout = _TIMEOUT_SECONDS
    for kind in dict.fromkeys((file.SOPClassUID, file.file_meta.TransferSyntaxUID) for file in files):
        entity.add_requested_context(*kind)
    kinds = set()  # an association whose peer hangs up at once behind its rejection calls that aborted
    handlers = [(evt.EVT_PDU_RECV, lambda event: kinds.add(type(event.pdu)))]
    association = entity.associate(node.host, node.port, ae_title=node.title, evt_handlers=handlers)
    if not association.is_established:
        if A_ASSOCIATE_RJ in kinds:
            raise ArchiveError(
                f"{node} does not talk to {OWN_TITLE}; check its title, and let its owner add {OWN_TITLE}"
            )
        raise ArchiveError(f"cannot reach {node}; check host and port, and whether it speaks DICOM there")
    try:
        for file in files:
            if not association.accepted_contexts:
                raise ArchiveError(f"{node} does not take files of this kind ({file.SOPClassUID.name})")
            status = association.send_c_store(file)
            code = status.get("Status")
            if code is None:
                raise ArchiveError(f"{node} broke the connection instead of storing the mask; see its own log")
            if code and code not in _WARNINGS:
                raise ArchiveError(f"{node} does not store the mask (status {code:04X}H); see its own log")
    finally:
        association.release()

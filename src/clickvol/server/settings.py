"""What a server may be asked for, by whom, and where it keeps its sessions. Torch-free."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_data_path

from clickvol.errors import ConfigError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

_MEBI = 1 << 20

MIN_TOKEN_LENGTH = 16
"""Shorter tokens are refused; 16 random characters of base 64 are 96 bits. Chosen, not from a standard."""

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server is set up.

    Attributes:
        state_folder: where sessions are kept, so that they survive the process.
        root: scans under this folder may be opened by path; None: uploads only.
        dicomweb: address of an archive whose series MONAI Label's clients may name; None: none.
        labels: folder in which MONAI Label's clients may save labels; None: they may not.
        store_labels: a label of a series of the archive is stored there, too, as a DICOM segmentation.
        start_path: what the viewer opens at once, under the root; None: nothing.
        start_series: which DICOM series of it, where there are several.
        worklist_source: a manifest, or a folder with scans, to annotate one after the other; None: nothing.
        worklist_output: folder that its masks go to.
        host: address to listen on.
        port: 0 takes a free one.
        token: every call must carry it; None: none is asked for, on loopback only.
        allowed_hosts: further names in the address line under which browsers reach the server.
        allowed_origins: web pages of other servers (an OHIF viewer) that may call, "https://host:port".
        root_path: "/clickvol": the path below which a proxy has this server, whether it passes it on or not.
        trusted_proxies: addresses or networks whose X-Forwarded-For and -Proto say who asks, and how.
        tls_certificate: PEM file, with the certificates between it and the root; None: plain HTTP.
        tls_key: PEM file without a password; None: it is in the file of the certificate.
        max_upload_mb: of one request, MiB.
        max_voxels: of one scan, after unpacking.
        max_sessions: in memory at one time; beyond it, the one used least recently waits on disk.
        max_leases: in memory and on disk; further ones are refused.
        lease_seconds: a session that nothing asks for so long ends.
        memory_mb: for scans, features and history of all sessions, MiB; above it, the session used least
            recently waits on disk.
        max_waiting: requests that may wait for the model; further ones are told to come again.
        keep_log_days: how long click logs of ended sessions stay.

    Raises:
        ConfigError: when the settings contradict each other or are out of range.
    """

    state_folder: Path
    root: Path | None = None
    dicomweb: str | None = None
    labels: Path | None = None
    store_labels: bool = False
    start_path: Path | None = None
    start_series: str | None = None
    worklist_source: Path | None = None
    worklist_output: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_upload_mb: int = 2048
    max_voxels: int = 1 << 29
    max_sessions: int = 16
    max_leases: int = 1024
    lease_seconds: int = 1800
    memory_mb: int = 4096
    max_waiting: int = 32
    keep_log_days: int = 30

    def __post_init__(self) -> None:
        if not self.is_loopback and self.token is None:
            raise ConfigError(f"a server on {self.host} can be reached by others and needs a token; give one")
        self._check_network()
        if self.token is not None and (
            len(self.token) < MIN_TOKEN_LENGTH or not self.token.isascii() or " " in self.token
        ):
            raise ConfigError(
                f"the token is too short or not plain; give at least {MIN_TOKEN_LENGTH} ASCII characters "
                "without spaces"
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"the port is {self.port}; give 0 to 65535")
        positive = ("max_upload_mb", "max_voxels", "max_sessions", "max_leases", "lease_seconds")
        for name in (*positive, "memory_mb", "max_waiting", "keep_log_days"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.root is not None and not self.root.is_dir():
            raise ConfigError(f"the root {self.root} is not a folder; give the folder that holds the scans")
        if self.store_labels and (self.dicomweb is None or self.labels is None):
            raise ConfigError("labels are stored in an archive and kept in a folder; give both or neither")
        if self.start_path is not None and self.root is None:
            raise ConfigError("a scan to start with lies under a root; give the root too")
        if (self.worklist_source is None) != (self.worklist_output is None):
            raise ConfigError("a worklist has a source and an output folder; give both or neither")

    def _check_network(self) -> None:
        if self.trusted_proxies and self.token is None:
            raise ConfigError("a server behind a proxy can be reached by others and needs a token; give one")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigError(f"{proxy!r} is no address of a proxy; give 10.0.0.1 or 10.0.0.0/8") from error
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ConfigError(f"{self.root_path!r} is no path below which to serve; give one such as /clickvol")
        if self.tls_key is not None and self.tls_certificate is None:
            raise ConfigError("a key for TLS needs its certificate; give both")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        return is_loopback_name(self.host)

    @property
    def max_upload_bytes(self) -> int:
        """Largest body of a request with a file."""
        return self.max_upload_mb * _MEBI

    @property
    def memory_bytes(self) -> int:
        """Memory of all sessions."""
        return self.memory_mb * _MEBI


def is_loopback_name(host: str) -> bool:
    """Tell whether a host is this machine's loopback, by name or by address (127.0.0.0/8, ::1)."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_state_folder() -> Path:
    """Return where sessions are kept if nothing else is said: below the system's folder for user data."""
    try:
        return user_data_path("clickvol", appauthor=False) / "sessions"
    except RuntimeError as error:
        raise ConfigError(
            "this user has no home folder to keep sessions in; give one with --state-folder"
        ) from error

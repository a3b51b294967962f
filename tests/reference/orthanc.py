"""Debian's Orthanc with its DICOMweb plugin, started in a temporary folder on free ports."""

import contextlib
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
USER, PASSWORD = "reader", "right-password"

needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or not PLUGIN.exists(), reason="Debian's orthanc and orthanc-dicomweb are not installed"
)

_START_SECONDS = 60


@dataclass(frozen=True)
class Orthanc:
    """A running archive: its ports, its folder, and its own REST interface for the tests to look into."""

    process: subprocess.Popen
    http_port: int
    dicom_port: int
    folder: Path

    @property
    def dicomweb(self) -> str:
        return f"dicomweb+http://localhost:{self.http_port}/dicom-web"

    @property
    def rest(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://localhost:{self.http_port}", auth=(USER, PASSWORD), timeout=30)

    def upload(self, folder: Path) -> None:
        with self.rest as rest:
            for file in sorted(folder.iterdir()):
                rest.post("/instances", content=file.read_bytes()).raise_for_status()

    def instances(self, modality: str) -> list[str]:
        """Return Orthanc's own ids of all files of a modality."""
        with self.rest as rest:
            query = {"Level": "Instance", "Query": {"Modality": modality}}
            return rest.post("/tools/find", json=query).json()

    def file(self, instance: str) -> bytes:
        with self.rest as rest:
            return rest.get(f"/instances/{instance}/file").content

    def delete_all(self) -> None:
        with self.rest as rest:
            for study in rest.get("/studies").json():
                rest.delete(f"/studies/{study}").raise_for_status()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running_orthanc(folder: Path, **settings):
    """Run an archive for a block; its database lies in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": free_port(),
        "DicomPort": free_port(),
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "ConcurrentJobs": 1,
        "OverwriteInstances": True,
        "MaximumStorageCacheSize": 0,
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(known))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
    orthanc = Orthanc(process, known["HttpPort"], known["DicomPort"], folder)
    try:
        _wait_for(orthanc)
        yield orthanc
    finally:
        process.terminate()
        process.wait()


def _wait_for(orthanc: Orthanc) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and orthanc.process.poll() is None:
        with contextlib.suppress(httpx.HTTPError), orthanc.rest as rest:
            if rest.get("/system").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"orthanc did not start: {(orthanc.folder / 'log').read_text()[-2000:]}")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost; return key and certificate in one file, and the certificate alone."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(secret + pem)
    (folder / "authority.pem").write_bytes(pem)
    return folder / "both.pem", folder / "authority.pem"


@dataclass
class Relay:
    """What goes through between a client and an archive: a line that can break, and that can be listened to.

    Attributes:
        target: port of the archive.
        after_bytes: of its answers; then `action` is called, once.
        action: returns whether the line breaks.
        requests: what the client has sent.
        certificate: key and certificate in one file, to speak TLS with the client; Debian's Orthanc crashes
            when it is asked to.
    """

    target: int
    after_bytes: int = 1 << 60
    action: Callable[[], bool] = lambda: True
    requests: bytearray = field(default_factory=bytearray)
    certificate: Path | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._num_bytes = 0
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def dicomweb(self) -> str:
        scheme = "dicomweb+http" if self.certificate is None else "dicomweb"
        return f"{scheme}://localhost:{self.port}/dicom-web"

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.certificate is not None:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(self.certificate)
                    try:
                        client = context.wrap_socket(client, server_side=True)
                    except OSError:
                        client.close()
                        continue
                server = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += [client, server]
                threading.Thread(target=self._upward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._downward, args=(server, client), daemon=True).start()

    def _upward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 14):
                self.requests += data
                server.sendall(data)

    def _downward(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 12):
                before, self._num_bytes = self._num_bytes, self._num_bytes + len(data)
                if before < self.after_bytes <= self._num_bytes and self.action():
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(target: int, **words):
    line = Relay(target, **words)
    try:
        yield line
    finally:
        line.close()

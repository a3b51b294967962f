"""A real nginx on loopback, with the configuration that is shipped."""

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def certificate(folder, password=None):
    """Write a certificate for 127.0.0.1 that signs itself, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    places = folder / "certificate.pem", folder / "key.pem"
    places[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    if password is not None:
        plain = serialization.BestAvailableEncryption(password)
    form = serialization.PrivateFormat.PKCS8
    places[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return places


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def proxied(folder, addresses, *, strips_prefix=False):
    """Run nginx before servers, for the length of a block.

    Args:
        folder: for its files.
        addresses: of two servers, "127.0.0.1:PORT".
        strips_prefix: take /clickvol off the path, as many set it up.

    Yields:
        The address below which the servers are, and the file with the certificate to trust.
    """
    signed, key = certificate(folder)
    port = free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    changes = {
        "127.0.0.1:8001": addresses[0],
        "127.0.0.1:8002": addresses[1],
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/clickvol/certificate.pem": str(signed),
        "/etc/clickvol/key.pem": str(key),
    }
    if strips_prefix:
        changes["proxy_pass http://clickvol;"] = "proxy_pass http://clickvol/;"
    for old, new in changes.items():
        assert text.count(f"{old}") >= 1, old
        text = text.replace(old, new)
    own = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker cannot write into our folder
    whole = (
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; {own}\n{text}}}\n"
    )
    (folder / "nginx.conf").write_text(whole, encoding="utf-8")
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}/clickvol", signed
    finally:
        process.terminate()
        process.wait()

"""A hostile client on a real socket: how each attack is answered, and that a good client goes on clicking."""

import gzip
import io
import json
import os
import socket
import zipfile

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.io.formats import write_volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.server.client import RemoteSession
from reference.live_server import ServerProcess, wait_one_second_for_a_head
from reference.random_models import write_random_model

pytestmark = pytest.mark.slow

HOST = b"Host: 127.0.0.1"
JSON = b"Content-Type: application/json"
CLOSED = b""
MEBI = 1 << 20


def ask(target, *headers, method=b"GET", body=b"", host=HOST):
    """A request as it is on the wire."""
    length = (b"Content-Length: %d" % len(body),) if body else ()
    lines = (method + b" " + target + b" HTTP/1.1", *((host,) if host else ()), *headers, *length, b"", body)
    return b"\r\n".join(lines)


def post(target, *headers, body=b"", **words):
    return ask(target, *headers, method=b"POST", body=body, **words)


def open_path(path, *headers):
    return post(b"/api/sessions", JSON, *headers, body=json.dumps({"path": path}).encode())


def upload(name, content, *, target=b"/api/sessions", field=b"scan", method=b"POST"):
    part = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n' % (field, name)
    form = b"Content-Type: multipart/form-data; boundary=b"
    return ask(target, form, method=method, body=part + content + b"\r\n--b--\r\n")


def nifti_bomb():
    """60 kB that are 64 MiB of zeros, as the header says."""
    header = bytearray(348)
    header[0:4] = (348).to_bytes(4, "little")
    header[40:56] = np.array([3, 256, 256, 256, 1, 1, 1, 1], "<i2").tobytes()
    header[70:74] = np.array([16, 32], "<i2").tobytes()
    header[76:108] = np.ones(8, "<f4").tobytes()
    header[108:112] = np.array([352], "<f4").tobytes()
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + bytes(64 * MEBI), 9)


def zip_bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"{number}.dcm", bytes(32 * MEBI))
    return file.getvalue()


def zip_that_climbs():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../climbed.dcm", b"x")
    return file.getvalue()


def npy_bomb():
    file = io.BytesIO()
    np.save(file, np.zeros((1, 1, 1), np.uint8))
    return gzip.compress(file.getvalue() + bytes(64 * MEBI), 9)


CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = b"0\r\n\r\nGET /api/model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
FOREIGN = (b"Sec-Fetch-Site: cross-site", b"Origin: https://evil.example")
CLICK = json.dumps({"position": [0, 0, 0]}).encode()
NO_SESSION = b"/api/sessions/none/clicks"

ATTACKS = {
    # other names, other sites
    "a name of another site": (ask(b"/api/health", host=b"Host: evil.example"), 403),
    "a name that contains ours": (ask(b"/api/health", host=b"Host: 127.0.0.1.evil.example"), 403),
    "ours as the user of another name": (ask(b"/api/health", host=b"Host: 127.0.0.1@evil.example"), 403),
    "no name": (ask(b"/api/health", host=None), 400),
    "two names": (ask(b"/api/health", b"Host: evil.example"), 400),
    "a whole address as the target": (ask(b"http://evil.example/api/health"), 404),
    "a script of another site": (post(b"/api/sessions", JSON, *FOREIGN, body=CLICK), 403),
    "a form of another site": (post(b"/api/sessions", b"Content-Type: text/plain", FOREIGN[0]), 403),
    "a form of a page without an origin": (post(b"/upload_image", b"Origin: null"), 403),
    "an image of another site that begins a session": (ask(b"/start_session", FOREIGN[0]), 403),
    "a websocket of another site": (ask(b"/", b"Connection: Upgrade", b"Upgrade: websocket", *FOREIGN), 403),
    "a preflight of another site": (
        ask(b"/api/sessions", b"Access-Control-Request-Method: POST", FOREIGN[1], method=b"OPTIONS"),
        403,
    ),
    # paths
    "a path that climbs": (open_path("../outside.nii.gz"), 403),
    "a path from the top": (open_path("/etc/passwd"), 403),
    "a link out of the root": (open_path("link.nii.gz"), 403),
    "a folder with a link out of the root": (open_path("folder"), 403),
    "a pipe": (open_path("pipe.nii.gz"), 404),
    "a null byte in a path": (open_path("scan.nii.gz\0.txt"), 404),
    "half a character in a path": (post(b"/api/sessions", JSON, body=b'{"path": "\\ud800"}'), 422),
    "a path longer than any": (open_path("a/" * 2000), 404),
    "a null byte in the address": (ask(b"/viewer/app.js%00.css"), 400),
    "the server's source": (ask(b"/viewer/../server/app.py"), 404),
    "the server's source, encoded": (ask(b"/viewer/%2e%2e/server/app.py"), 404),
    "the server's source, encoded twice": (ask(b"/viewer/%252e%252e/server/app.py"), 404),
    "the server's source, with the other slash": (ask(b"/viewer/..%5cserver%5capp.py"), 404),
    "a session that climbs": (ask(b"/api/sessions/..%2f..%2fsecret"), 404),
    "an image that climbs": (ask(b"/datastore/image?image=..%2foutside.nii.gz"), 404),
    "a header that names another file": (upload(b"a.mhd", b"ElementDataFile = /etc/passwd"), 415),
    # more than it looks
    "a gzip bomb": (upload(b"a.nii.gz", nifti_bomb()), 413),
    "a zip bomb": (upload(b"a.zip", zip_bomb()), 413),
    "a zip that climbs": (upload(b"a.zip", zip_that_climbs()), 422),
    "a bomb in a numpy file": (upload(b"a.npy.gz", npy_bomb(), target=b"/upload_image", field=b"file"), 413),
    "a thousand fields": (
        post(
            b"/api/sessions",
            b"Content-Type: multipart/form-data; boundary=b",
            body=b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1000 + b"--b--\r\n",
        ),
        400,
    ),
    "brackets without end": (post(b"/api/sessions", JSON, body=b"[" * 200_000), 422),
    "a number without end": (post(NO_SESSION, JSON, body=b'{"position": [0, 0, ' + b"9" * 5000 + b"]}"), 400),
    "a place at infinity": (post(NO_SESSION, JSON, body=b'{"position": [0, 0, 1e999]}'), 404),
    # where a request ends
    "two lengths": (post(b"/undo", b"Content-Length: 5", b"Content-Length: 6", body=b""), 400),
    "a length and pieces": (post(b"/undo", CHUNKED, body=SMUGGLED), 400),
    "pieces by another name": (post(b"/undo", b"Transfer-Encoding: xchunked") + SMUGGLED, 400),
    "pieces said twice": (post(b"/undo", CHUNKED, CHUNKED) + SMUGGLED, 400),
    "a length below nothing": (post(b"/undo", b"Content-Length: -1"), 400),
    "a length with a sign": (post(b"/undo", b"Content-Length: +0"), 400),
    "a length of a thousand digits": (post(b"/undo", b"Content-Length: " + b"9" * 1000), 400),
    "a length beyond any disk": (post(b"/api/sessions", b"Content-Length: 9999999999999999"), 413),
    "a piece without a length": (post(NO_SESSION, JSON, CHUNKED) + b"zz\r\n", 400),
    "a space before the colon": (ask(b"/api/health", b"Content-Length : 5"), 400),
    # headers and methods
    "one header of 20 kB": (ask(b"/api/health", b"X-A: " + b"b" * 20_000), 431),
    "an address of 20 kB": (ask(b"/api/health?" + b"b" * 20_000), 431),
    "two hundred headers": (ask(b"/api/health", *[b"X-A: b"] * 200), 431),
    "headers without end": (ask(b"/api/health", *[b"X-A: b"] * 5000)[:-2], 400),
    "many ranges": (ask(b"/viewer/app.js", b"Range: bytes=" + b"0-1," * 3000), 200),
    "a method that is none": (ask(b"/api/health", method=b"PURGE"), 405),
    "a trace": (ask(b"/api/health", method=b"TRACE"), 405),
    "a tunnel": (ask(b"evil.example:443", method=b"CONNECT"), 404),
    "the next version of HTTP": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
    "TLS where there is none": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", 400),
    # what was not meant
    "a scan as the form of a page": (
        post(b"/api/sessions", b"Content-Type: application/x-www-form-urlencoded", body=b"path=scan.nii.gz"),
        422,
    ),
    "a form without its mark": (post(b"/api/sessions", b"Content-Type: multipart/form-data", body=b"x"), 400),
    "a scan that is none": (upload(b"a.nii.gz", b"no scan"), 422),
    "no UTF-8": (post(b"/api/sessions", JSON, body=b'{"path": "\xff\xfe"}'), 422),
    "a lease that is none": (post(b"/predict", b"X-Lease-Token: ../../secret"), 410),
    "half a head": (b"GET /api/health HTTP/1.1\r\nHost: ", CLOSED),
    "nothing at all": (b"", CLOSED),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory, phantom):
    folder = tmp_path_factory.mktemp("attacked")
    root = folder / "root"
    (root / "folder").mkdir(parents=True)
    for place in (root / "scan.nii.gz", folder / "outside.nii.gz"):
        write_volume(phantom.volume.array, phantom.volume.grid, place)
    (root / "link.nii.gz").symlink_to(folder / "outside.nii.gz")
    (root / "folder" / "1.dcm").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe.nii.gz")
    card = write_random_model(promise3d_recipe("clickvol", "tiny"), folder)
    words = ("--max-upload-mb", 4, "--max-voxels", MEBI, "--state-folder", folder / "state")
    words += ("--root", root, "--model", card, "--quiet")
    server = ServerProcess(*words, prepare=wait_one_second_for_a_head)
    yield server
    assert server.stop() == "Research use only, not a medical device. Ctrl-C ends it.\n"


@pytest.fixture(scope="module")
def session(server, phantom):
    """A good client that has clicked before any attack."""
    with RemoteSession(server.address) as remote:
        remote.open_path("scan.nii.gz")
        remote.click(phantom.inside)
        yield remote


def answer_to(server, request):
    """Send bytes; return the status of the answer, or what came where none did."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        start = connection.recv(12)
    return int(start[9:]) if start.startswith(b"HTTP/1.1 ") else start


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_answered_and_a_good_client_goes_on(server, session, name):
    request, expected = ATTACKS[name]
    mask = session.mask().array
    assert answer_to(server, request) == expected
    assert np.array_equal(session.mask().array, mask)
    assert len(session.objects[0].clicks) == 1


def test_a_smuggled_request_is_not_answered(server):
    """The connection ends after the refusal: what follows could be a request for a proxy, or part of one."""
    host, port = server.address.removeprefix("http://").split(":")
    for name in ("a length and pieces", "two lengths", "pieces said twice"):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(ATTACKS[name][0] + ask(b"/api/model"))
            answers = b""
            while part := connection.recv(65536):
                answers += part
        assert answers.count(b"HTTP/1.1 ") == 1, name


def test_after_all_of_them_a_click_is_answered(server, session, phantom):
    place = phantom.volume.grid.to_world(phantom.inside)
    answer = session.click(WorldPointRAS(place.x, place.y, place.z))
    assert answer.num_voxels > 0
    assert session.undo()

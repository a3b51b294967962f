"""The real server in a process of its own: killed in the middle of a click, and started again."""

import json
import logging
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from clickvol.errors import ConfigError
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.server.client import RemoteError, RemoteSession
from clickvol.server.http.running import JsonLines, address_of, check_installed
from clickvol.server.settings import ServerSettings
from reference.live_server import ServerProcess, wait_one_second_for_a_head
from reference.nginx import certificate
from reference.random_models import write_random_model


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path_factory.mktemp("model"))


@pytest.fixture
def start(card, root, tmp_path):
    started = []

    def start_server(*words, prepare=None):
        state = ("--state-folder", tmp_path / "state")
        server = ServerProcess("--root", root, "--model", card, *state, *words, prepare=prepare)
        started.append(server)
        return server

    yield start_server
    for server in started:
        server.kill()


def ask(server, path, body=None, token=None):
    headers = {"Content-Type": "application/json"}
    headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.address + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


def kinds_of(log):
    """The kinds of the whole lines of a log that may be written to right now."""
    text = log.read_text()
    return [json.loads(line)["kind"] for line in text[: text.rfind("\n") + 1].splitlines()]


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_a_click_loses_no_click(start, tmp_path, phantom):
    server = start()
    session = json.loads(ask(server, "/api/sessions", {"path": "scan.nii.gz"}))
    url = f"/api/sessions/{session['session_id']}"
    i, j, k = phantom.inside.to_ijk()
    clicks = [((i, j, k), True), ((i + 3, j, k), False), ((i, j + 3, k), True)]
    for position, positive in clicks[:2]:
        ask(server, f"{url}/clicks", {"position": position, "space": "ijk", "positive": positive})
    (log,) = (tmp_path / "state").rglob("*.jsonl")
    assert kinds_of(log)[-1] == "answered"

    def last_click():
        with pytest.raises((OSError, urllib.error.URLError)):
            ask(server, f"{url}/clicks", {"position": clicks[2][0], "space": "ijk"})

    thread = threading.Thread(target=last_click)
    thread.start()
    deadline = time.monotonic() + 30
    while kinds_of(log)[-1] != "click" and time.monotonic() < deadline:
        time.sleep(0.001)
    server.kill()
    thread.join()
    assert kinds_of(log) == ["clickvol-session", *["click", "answered"] * 2, "click"]

    again = start()
    state = json.loads(ask(again, url))
    assert len(state["objects"][0]["clicks"]) == 3
    assert state["tag"] != session["state"]["tag"]
    mask = ask(again, f"{url}/mask.nii.gz")
    fresh = json.loads(ask(again, "/api/sessions", {"path": "scan.nii.gz"}))
    other = f"/api/sessions/{fresh['session_id']}"
    for position, positive in clicks:
        ask(again, f"{other}/clicks", {"position": position, "space": "ijk", "positive": positive})
    assert ask(again, f"{other}/mask.nii.gz") == mask
    assert fresh["resumable"][0]["num_clicks"] == 3
    ask(again, f"{url}/undo", {})
    err = again.stop()
    assert "Traceback" not in err
    assert "POST /api/sessions/{session_id}/undo 200" in err
    assert "scan.nii.gz" not in err.replace("/scan.nii.gz", "")


@pytest.mark.slow
def test_one_of_two_servers_is_killed_in_the_middle_of_clicking(start, tmp_path, phantom):
    """They share a state folder; what the first had begun is sent to the second again, as a proxy does."""
    first, second = start(), start()
    session = json.loads(ask(first, "/api/sessions", {"path": "scan.nii.gz"}))
    url = f"/api/sessions/{session['session_id']}"
    i, j, k = phantom.inside.to_ijk()
    clicks = [{"position": (i + di, j, k), "space": "ijk"} for di in range(3)]
    ask(first, f"{url}/clicks", clicks[0])
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(second, f"{url}/clicks", clicks[1])
    refused.value.close()
    assert refused.value.code == 503  # the other one has it; nothing has happened
    (log,) = (tmp_path / "state").rglob("*.jsonl")

    def click():
        with pytest.raises((OSError, urllib.error.URLError)):
            ask(first, f"{url}/clicks", clicks[1])

    thread = threading.Thread(target=click)
    thread.start()
    deadline = time.monotonic() + 30
    while kinds_of(log)[-1] != "click" and time.monotonic() < deadline:
        time.sleep(0.001)
    first.kill()
    thread.join()
    for again in clicks[1:]:
        ask(second, f"{url}/clicks", again)
    assert len(json.loads(ask(second, url))["objects"][0]["clicks"]) == 3
    mask = ask(second, f"{url}/mask.nii.gz")
    fresh = json.loads(ask(second, "/api/sessions", {"path": "scan.nii.gz"}))
    for one in clicks:
        ask(second, f"/api/sessions/{fresh['session_id']}/clicks", one)
    assert ask(second, f"/api/sessions/{fresh['session_id']}/mask.nii.gz") == mask


@pytest.mark.slow
def test_half_a_request_is_closed_in_seconds_and_a_flood_of_headers_at_once(start):
    server = start("--quiet")
    host, port = server.address.removeprefix("http://").split(":")
    begun = time.monotonic()
    halves = [socket.create_connection((host, int(port)), timeout=30) for _ in range(100)]
    for half in halves:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
    assert ask(server, "/healthz") == b'{"ok":true}'
    assert [half.recv(10) for half in halves] == [b""] * 100
    assert time.monotonic() - begun < 20
    for half in halves:
        half.close()
    with socket.create_connection((host, int(port)), timeout=30) as flood:
        flood.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000)
        assert flood.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 431")


@pytest.mark.slow
def test_a_server_for_others_makes_a_token_and_says_it_once(start, tmp_path):
    server = start("--host", "0.0.0.0", "--quiet")
    address, _, token = server.first_line.partition("#token=")
    assert len(token) >= 40
    server.address = address.replace("0.0.0.0", "127.0.0.1").rstrip("/")
    assert json.loads(ask(server, "/api/health", token=token))["status"] == "ok"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(server, "/api/health")
    with pytest.raises(RuntimeError, match="cannot listen"):
        start("--port", server.address.rsplit(":", 1)[1])
    err = server.stop()
    assert token not in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_token_from_a_file(start, tmp_path, phantom):
    (tmp_path / "token").write_text("a-token-of-24-characters\n")
    server = start("--token-file", tmp_path / "token")
    assert "token" not in server.first_line
    with RemoteSession(server.address, token="a-token-of-24-characters") as remote:
        remote.open_path("scan.nii.gz")
        assert remote.click(phantom.inside).num_voxels > 0
    with RemoteSession(server.address) as remote, pytest.raises(RemoteError, match="token"):
        remote.open_path("scan.nii.gz")


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ({}, "http://127.0.0.1:80/"),
        ({"host": "::1"}, "http://[::1]:80/"),
        ({"tls_certificate": Path("c.pem")}, "https://127.0.0.1:80/"),
        ({"root_path": "/a/b"}, "http://127.0.0.1:80/a/b/"),
    ],
)
def test_addresses(tmp_path, words, address):
    assert address_of(ServerSettings(state_folder=tmp_path, **words), 80) == address


def test_a_line_of_json_has_what_is_known_of_a_request_and_nothing_else():
    record = logging.LogRecord("clickvol.server", logging.INFO, "/home/meier.py", 1, "%(method)s", None, None)
    record.created, record.request = 0.0, {"method": "GET", "route": "/", "status": 200, "seconds": 0.1}
    known = {"time": "1970-01-01T00:00:00.000+00:00", "level": "info", **record.request}
    assert json.loads(JsonLines().format(record)) == known
    other = logging.LogRecord("clickvol.server", logging.ERROR, "meier.py", 1, "unexpected %s", ("E",), None)
    assert json.loads(JsonLines().format(other))["message"] == "unexpected E"


@pytest.mark.slow
def test_tls(start, tmp_path, phantom):
    signed, key = certificate(tmp_path)
    words = ("--tls-cert", signed, "--tls-key", key, "--log-format", "json")
    server = start(*words, prepare=wait_one_second_for_a_head)
    assert server.address.startswith("https://127.0.0.1:")
    with RemoteSession(server.address, ca_file=signed) as remote:
        remote.open_path("scan.nii.gz")
        assert remote.click(phantom.inside).num_voxels > 0
    with RemoteSession(server.address) as remote, pytest.raises(RemoteError, match="does not answer"):
        remote.open_path("scan.nii.gz")
    host, port = server.address.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        assert plain.recv(10) == b""  # nothing came: the handshake has ended in seconds
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(plain)
    lines = [json.loads(line) for line in server.stop().splitlines() if line.startswith("{")]
    clicked = [line for line in lines if line["route"] == "/api/sessions/{session_id}/clicks"]
    assert [(line["client"], line["method"], line["status"]) for line in clicked] == [("api", "POST", 200)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no file", "no certificate", "another key", "a password"])
def test_a_certificate_that_cannot_be_used_is_one_line(start, tmp_path, fault):
    signed, key = certificate(tmp_path)
    if fault == "no file":
        signed = tmp_path / "none.pem"
    elif fault == "no certificate":
        signed.write_text("no PEM")
    elif fault == "another key":
        (tmp_path / "other").mkdir()
        key = certificate(tmp_path / "other")[1]
    else:
        certificate(tmp_path, password=b"secret")
    with pytest.raises(RuntimeError, match="cannot serve with the certificate") as failed:
        start("--tls-cert", signed, "--tls-key", key)
    assert str(failed.value).count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigError, match=r'pip install "clickvol\[serve\]"'):
        check_installed()

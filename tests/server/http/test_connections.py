"""Connections on which nothing goes on: half a head, a body that trickles, an answer that nobody reads."""

import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

import uvicorn

from clickvol.server.http import connections
from clickvol.server.http.connections import PunctualProtocol

LARGE = b"x" * (64 << 20)  # more than the sockets between client and server hold


async def app(scope, receive, send):
    """Read the body and say how long it was; or send more than a client reads."""
    size, more = 0, scope["type"] == "http"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    body = LARGE if scope["path"] == "/large" else b"%d" % size
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def connect(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "_PACE_SECONDS", 1.0)
    config = uvicorn.Config(
        app, port=0, http=PunctualProtocol, log_config=None, log_level="critical", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    opened = []
    while not server.started:
        time.sleep(0.01)

    def to_server():
        opened.append(socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=30))
        return opened[-1]

    to_server.all_ended = lambda: not server.server_state.connections
    yield to_server
    for connection in opened:
        connection.close()
    server.should_exit = True
    thread.join()


def ended(connection):
    """Read until the server ends the connection; return how many bytes came."""
    size = 0
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            size += len(part)
    return size


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: "])
def test_half_a_head_ends(connect, start):
    connection = connect()
    connection.sendall(start)
    assert ended(connection) == 0


def test_the_head_of_a_second_request_may_not_trickle_either(connect):
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\n0"):
        answer += connection.recv(1 << 16)
    connection.sendall(b"GET /")
    assert ended(connection) == 0


def test_a_body_that_trickles_ends(connect):
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(5_000):
            connection.sendall(b"x")
            time.sleep(0.02)
        pytest.fail("the connection is still there")


def test_a_body_that_goes_on_is_read_however_long_it_takes(connect):
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1500000\r\n\r\n")
    for _ in range(30):
        connection.sendall(b"x" * 50_000)
        time.sleep(0.08)
    answer = b""
    while not answer.endswith(b"1500000"):
        part = connection.recv(1 << 16)
        assert part
        answer += part


def test_an_answer_that_nobody_reads_ends(connect):
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.recv(1) == b"H"
    for _ in range(1200):
        if connect.all_ended():
            break
        time.sleep(0.05)
    assert ended(connection) < len(LARGE)


def test_an_answer_that_is_read_slowly_arrives(connect):
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    size = 0
    for _ in range(25):
        size += len(connection.recv(1 << 18))
        time.sleep(0.08)
    assert size + ended(connection) > len(LARGE)


def test_no_http_in_the_middle_of_an_answer_ends_the_connection(connect):
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n")
    assert connection.recv(12) in (b"HTTP/1.1 400", b"")

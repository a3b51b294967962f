"""A web server on this machine that hands out one file, well or badly, and remembers what was asked."""

import contextlib
import dataclasses
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """How one request is answered; well, when nothing is given.

    Attributes:
        status: answer with this and no file.
        headers: sent with `status`.
        ranges: heed the Range header.
        shift: start so many bytes beside what was asked, and say so.
        total: length to claim in place of the true one; "" claims none.
        break_after: close the connection after so many bytes.
        pause_seconds: wait so long before anything is sent.
        gate: closed, it holds back what comes after `gate_at` bytes.
    """

    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    ranges: bool = True
    shift: int = 0
    total: str | None = None
    break_after: int | None = None
    pause_seconds: float = 0.0
    gate: threading.Event | None = None
    gate_at: int = 0


class FileServer:
    """Answers every GET with `content`.

    Attributes:
        content: the file.
        replies: how the next requests are answered, one each; then `default`.
        default: how all others are.
        requests: the headers of each request so far.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.replies: list[Reply] = []
        self.default = Reply()
        self.requests: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        # A client that was killed leaves a broken pipe, which is no news.
        self._server.handle_error = lambda *_: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/file.pth"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [request.get("Range") for request in self.requests]

    def _handler(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with owner._lock:
                    owner.requests.append(dict(self.headers))
                    reply = owner.replies.pop(0) if owner.replies else owner.default
                _answer(self, owner.content, reply)

            def log_message(self, *_):
                pass

        return Handler


@contextlib.contextmanager
def serve(content: bytes):
    """Run a server for the length of a block."""
    server = FileServer(content)
    thread = threading.Thread(target=server._server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server._server.shutdown()
        thread.join()
        server._server.server_close()


def _answer(handler, content, reply):
    time.sleep(reply.pause_seconds)
    if reply.status is not None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        return
    total = str(len(content)) if reply.total is None else reply.total
    asked = handler.headers.get("Range")
    if asked and reply.ranges:
        start = int(asked.removeprefix("bytes=").removesuffix("-")) + reply.shift
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{total}")
            handler.end_headers()
            return
        body = content[start:]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{total or '*'}")
        handler.send_header("Content-Length", str(len(body)))
    else:
        body = content
        handler.send_response(200)
        if total:
            handler.send_header("Content-Length", total)
    handler.end_headers()
    sent = body[: reply.break_after]
    if reply.gate is not None:
        handler.wfile.write(sent[: reply.gate_at])
        reply.gate.wait(timeout=60)
        sent = sent[reply.gate_at :]
    handler.wfile.write(sent)

"""The server on a real socket: in a thread of this process, or in a process of its own."""

import contextlib
import os
import signal
import threading
import time

import uvicorn

from reference.forked_program import ForkedProgram


@contextlib.contextmanager
def served(app):
    """Serve an app on loopback for the length of a block; lend its address."""
    config = uvicorn.Config(app, port=0, log_config=None, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def wait_one_second_for_a_head():
    """Make a server close after a second what it closes after five."""
    from clickvol.server.http import connections

    assert connections.HEAD_SECONDS == 5.0
    connections.HEAD_SECONDS = 1.0


class ServerProcess:
    """`clickvol serve` in a process of its own, which can be killed.

    Args:
        words: after `clickvol serve --port 0`.
        prepare: see `ForkedProgram`.

    Attributes:
        address: where it listens, without a slash at the end.
    """

    def __init__(self, *words, prepare=None):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment.pop("CLICKVOL_TOKEN", None)
        self._process = ForkedProgram(["serve", "--port", "0", *words], env=environment, prepare=prepare)
        self.first_line = self._process.stdout.readline().strip()
        if not self.first_line:
            raise RuntimeError(self._process.communicate()[1])
        self.address = self.first_line.split("#")[0].rstrip("/")

    def kill(self):
        """End it as a power cut would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def stop(self):
        """End it as Ctrl-C would; return what it wrote to stderr."""
        self._process.send_signal(signal.SIGINT)
        return self._process.communicate(timeout=60)[1]

"""`clickvol` in a process of its own, without the seconds that its imports take.

Programs are forked from a process that has imported everything and done nothing (a fork server), one for all
tests of a worker. Where starting Python is the point, a test starts Python.
"""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# A test may have a temporary folder of its own, whose path is too long for the fork server's socket.
multiprocessing.util.get_temp_dir()
# The first optimiser imports torch._dynamo.
_CONTEXT.set_forkserver_preload(
    ["clickvol.server.app", "clickvol.training.run", "clickvol.cli.app", "torch._dynamo"]
)


class ForkedProgram:
    """One run of the command line; as much of `subprocess.Popen` as tests use, texts alone.

    Args:
        words: after `clickvol`.
        env: all variables; None for those of this process. The fork server has read OMP_NUM_THREADS before.
        prepare: a function of a module, called in the process before the command line.

    Attributes:
        stdout: its output; whoever reads it waits for it.
    """

    def __init__(self, words, *, env=None, prepare=None):
        (out, its_out), (err, its_err) = (_CONTEXT.Pipe(duplex=False) for _ in range(2))
        given = (list(map(str, words)), dict(env or os.environ), str(Path.cwd()), prepare)
        self._process = _CONTEXT.Process(target=_run, args=(*given, its_out, its_err))
        self._process.start()
        its_out.close()
        its_err.close()
        self.stdout, self._stderr = (os.fdopen(os.dup(end.fileno())) for end in (out, err))
        out.close()
        err.close()
        self._told = []
        # Read at once: a full pipe would stop the program.
        self._reader = threading.Thread(target=lambda: self._told.append(self._stderr.read()), daemon=True)
        self._reader.start()

    @property
    def pid(self):
        """Of the process."""
        return self._process.pid

    def poll(self):
        """Return the exit status, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number):
        """Send a signal; nothing to one that has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def communicate(self, timeout=240):
        """Wait for its end; return what it wrote to stdout and stderr."""
        out = "" if self.stdout.closed else self.stdout.read()
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.send_signal(signal.SIGKILL)
            raise TimeoutError(f"the program ran for more than {timeout} s")
        self._reader.join(timeout)
        self.stdout.close()
        self._stderr.close()
        return out, "".join(self._told)


def _run(words, env, folder, prepare, out, err):
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    tempfile.tempdir = None  # what TMPDIR says now
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if prepare is not None:
        prepare()
    from clickvol.cli.app import main

    sys.exit(main(words))

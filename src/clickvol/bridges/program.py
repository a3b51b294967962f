"""Running another program: its words go to a log, and one line says what became of it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from filelock import lock_descriptor

from clickvol.errors import ExternalProgramError

_POLL_SECONDS = 0.5

_GRACE_SECONDS = 10.0
"""How long an interrupted program may take to end by itself."""

_LONGEST_QUOTE = 200

_PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""What would make the other environment's Python see this one's packages."""


@dataclass(frozen=True, kw_only=True)
class LoggedProgram:
    """One run of a program.

    Attributes:
        name: what it does, for messages: "nnU-Net's training".
        words: the program and its arguments; never read by a shell.
        variables: added to this process's environment.
        log: gets what it prints, after what earlier runs printed. One program at a time writes to it.
        advice: what to do when it fails, the end of the error's line.
    """

    name: str
    words: tuple[str, ...]
    variables: Mapping[str, str]
    log: Path
    advice: str


def run_logged(program: LoggedProgram, on_line: Callable[[str], None] = lambda _line: None) -> None:
    """Run a program to its end; an interruption ends it and everything that it started.

    Each line goes to `on_line` soon after it was printed. ExternalProgramError when it cannot be started or
    does not exit with 0, with its last line and the place of its log; or while an earlier program still writes
    to it.
    """
    with program.log.open("ab") as log:
        _lock(log, program)
        log.write(f"$ {' '.join(program.words)}\n".encode())
        log.flush()
        # Before the program starts: it shares the file's position, and may have printed all it has to say.
        start = log.tell()
        try:
            process = subprocess.Popen(
                program.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(program.variables),
                start_new_session=True,
            )
        except OSError as error:
            raise ExternalProgramError(
                f"cannot start {program.words[0]}: {error.strerror}; {program.advice}"
            ) from error
        try:
            last = _follow(process, program.log, start, on_line)
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise ExternalProgramError(_failure(program, process.returncode, last))


def ask_program(words: Sequence[str], advice: str) -> str:
    """Return what a short program prints; `advice` ends the line of the ExternalProgramError when it fails."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment({}), check=False
        )
    except OSError as error:
        raise ExternalProgramError(f"cannot start {words[0]}: {error.strerror}; {advice}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ExternalProgramError(f"{words[0]} failed: {lines[-1][:_LONGEST_QUOTE]}; {advice}")
    return done.stdout


def _lock(log: BufferedWriter, program: LoggedProgram) -> None:
    """Lock the log for as long as the program lives, which outlives us where we are killed."""
    if not lock_descriptor(log.fileno(), blocking=False):
        holders = _holders(program.log)
        named = ", ".join(f"process {pid} ({words})" for pid, words in holders.items()) or "a process"
        end = f" (kill {' '.join(map(str, holders))})" if holders else ""
        raise ExternalProgramError(
            f"{program.name} cannot begin: {named} that an earlier command started still works "
            f"with {program.log}; wait for it or end it{end}"
        )


def _holders(log: Path) -> dict[int, str]:
    """Return the other processes that have a file open, by number, and their words; Linux alone tells."""
    called: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_open = any(os.path.realpath(link) == str(log.resolve()) for link in (process / "fd").iterdir())
            if is_open and int(process.name) != os.getpid():
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                called[int(process.name)] = " ".join(" ".join(words).split())[:_LONGEST_QUOTE]
    return called


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _PYTHON_VARIABLES}
    return {**kept, **variables}


def _follow(process: subprocess.Popen[bytes], log: Path, start: int, on_line: Callable[[str], None]) -> str:
    """Wait for the end; return the last line that says something."""
    last, rest, ended = "", "", False
    with log.open("rb") as written:
        written.seek(start)
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
                ended = True
            *lines, rest = (rest + written.read().decode(errors="replace")).split("\n")
            for line in (*lines, rest) if ended else lines:
                if line.strip():
                    last = line.strip()
                    on_line(last)
    return last


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started, which are one process group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
            return


def _failure(program: LoggedProgram, code: int, last: str) -> str:
    if code == -signal.SIGKILL:
        how = "was killed, most likely because the machine ran out of memory"
    else:
        how = f"failed: {last[:_LONGEST_QUOTE] or f'exit code {code}'}"
    return f"{program.name} {how}; everything it said is in {program.log}; {program.advice}"

"""Another program: its log, its failure in one line, and what ends it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from clickvol.bridges.program import LoggedProgram, ask_program, run_logged
from clickvol.errors import ExternalProgramError


@pytest.fixture
def program(tmp_path):
    """Make a program of a line of Python."""

    def make(code, **variables):
        return LoggedProgram(
            name="the test",
            words=(sys.executable, "-c", code),
            variables=variables,
            log=tmp_path / "log",
            advice="try again",
        )

    return make


def test_everything_is_logged_and_lines_are_handed_on(program, tmp_path):
    lines = []
    code = "import sys; print('one\\n\\ntwo'); sys.stdout.flush(); sys.stderr.write('three')"
    run_logged(program(code), lines.append)
    run_logged(program("print('four')"), lines.append)
    assert lines == ["one", "two", "three", "four"]
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert first == f"$ {sys.executable} -c {code.splitlines()[0]}"
    assert "three$ " in "\n".join(rest)  # the second run goes on below the first
    assert rest[-1] == "four"


def test_a_line_is_handed_on_while_the_program_runs(program, tmp_path):
    """It waits for a file that is only written when its first line has come."""
    code = (
        "import pathlib, sys, time; print('ready', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(.01)"
    )
    run_logged(program(code), lambda _line: (tmp_path / "go").touch())


def test_what_a_quick_program_printed_is_not_missed(program, monkeypatch):
    """It has ended when its start returns."""

    class Ended(subprocess.Popen):
        def __init__(self, *args, **words):
            super().__init__(*args, **words)
            self.wait()

    monkeypatch.setattr(subprocess, "Popen", Ended)
    lines = []
    run_logged(program("print('gone already')"), lines.append)
    assert lines == ["gone already"]


def test_it_sees_its_variables_and_not_our_python_path(program, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("KEPT", "yes")
    lines = []
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['KEPT'], os.environ['MORE'])"
    run_logged(program(code, MORE="1"), lines.append)
    assert lines == ["None yes 1"]


def test_a_failure_is_one_line_with_the_last_words_the_log_and_the_advice(program, tmp_path):
    with pytest.raises(ExternalProgramError) as caught:
        run_logged(program("print('first'); raise SystemExit('it is broken')"))
    log = tmp_path / "log"
    expected = f"the test failed: it is broken; everything it said is in {log}; try again"
    assert str(caught.value) == expected


def test_a_silent_failure_gives_its_exit_code(program):
    with pytest.raises(ExternalProgramError, match="the test failed: exit code 3; "):
        run_logged(program("raise SystemExit(3)"))


def test_a_killed_program_most_likely_had_no_memory(program):
    with pytest.raises(ExternalProgramError, match=r"was killed, most likely .* out of memory"):
        run_logged(program("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_program_that_is_not_there(program, tmp_path):
    missing = LoggedProgram(name="x", words=("/no/such",), variables={}, log=tmp_path / "log", advice="make it")
    with pytest.raises(ExternalProgramError, match=r"^cannot start /no/such: No such .*; make it$"):
        run_logged(missing)
    with pytest.raises(ExternalProgramError, match=r"^cannot start /no/such: No such .*; make it$"):
        ask_program(("/no/such",), "make it")


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", str(pid)], capture_output=True, text=True, check=False)
    return not stat.stdout.strip().startswith("Z")


def test_an_interruption_ends_the_program_and_what_it_started(program):
    """The program starts another one and prints its number; both are gone afterwards."""
    pids = []
    code = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
    )

    def interrupt(line):
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(program(code), interrupt)
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_is_alive, pids))


def test_a_program_that_outlived_its_command_keeps_the_log(program, tmp_path):
    """As after a kill -9 of the command: the log is locked until the program has ended."""
    code = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    up, pid = threading.Event(), []

    def run_in_background():
        with pytest.raises(ExternalProgramError):
            run_logged(program("import os; print(os.getpid(), flush=True); " + code), note)

    def note(line):
        if line.isdigit():
            pid.append(int(line))
        up.set()

    background = threading.Thread(target=run_in_background)
    background.start()
    try:
        assert up.wait(20)
        words = "an earlier command started still works"
        if sys.platform == "linux":
            words = rf"process {pid[0]} \(.*sleep\(60\).*{words}.*\(kill {pid[0]}\)"
        with pytest.raises(ExternalProgramError, match=words):
            run_logged(program("print('second')"))
    finally:
        os.kill(pid[0], signal.SIGKILL)
        background.join()
    run_logged(program("print('third')"))
    assert "second" not in (tmp_path / "log").read_text().split("\n")


def test_an_answer_is_what_was_printed():
    assert ask_program((sys.executable, "-c", "print(6 * 7)"), "-") == "42\n"


def test_no_answer_is_an_error_with_the_last_line():
    with pytest.raises(ExternalProgramError, match=r"failed: ValueError: no; do that$"):
        ask_program((sys.executable, "-c", "raise ValueError('no')"), "do that")

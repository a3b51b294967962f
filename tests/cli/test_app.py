import os
import subprocess
import sys
from pathlib import Path

import pytest

from clickvol.cli import app as app_module
from clickvol.errors import ClickvolError
from clickvol.version import __version__
from reference.forked_program import ForkedProgram

CONSOLE_SCRIPT = Path(sys.executable).with_name("clickvol")


def _process(*words, script=False):
    start = [str(CONSOLE_SCRIPT)] if script else [sys.executable, "-m", "clickvol"]
    return subprocess.run([*start, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", [True, False])
def test_both_entry_points_print_the_version(script):
    done = _process("--version", script=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"clickvol {__version__}\n", "")


@pytest.mark.parametrize("command", ["", "segment", "demo", "models", "models fetch", "info", "train"])
def test_every_command_has_help(run, command):
    for flag in ("--help", "-h"):
        code, out, err = run(*command.split(), flag)
        assert (code, err) == (0, "")
        assert "Usage" in out
        assert "<bool>" not in out


def test_help_says_that_it_is_for_research_use(run):
    for words in (["--help"], ["segment", "--help"], ["demo", "--help"]):
        text = " ".join(run(*words).out.split())
        assert "Research use only, not a medical device" in text.replace("│ ", "")


def test_no_command_prints_the_help(run):
    code, out, _ = run()
    assert code == 0
    assert "segment" in out


def test_the_command_line_is_loaded_without_heavy_imports():
    code = (
        "import sys, clickvol.cli.app\n"
        "heavy = {'torch', 'numpy', 'scipy', 'nibabel', 'SimpleITK', 'pydicom', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command"),
        (["segment"], "Missing argument 'SCAN'"),
        (["segment", "scan.nii", "-o", "mask.nii", "--click"], "--click"),
        (["segment", "scan.nii", "--click", "1,2,3"], "--output"),
        (["segment", "scan.nii", "--click", "1,2,3", "-o", "m.nii", "--space", "xyz"], "'lps'"),
        (["segment", "scan.nii", "--click", "1,2,3", "-o", "m.nii", "--volume", "x"], "--volume"),
        (["segment", "scan.nii", "--click", "1,2,3", "-o", "m.nii", "--modality", "US"], "'MR'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_words_that_cannot_be_parsed_are_one_line_and_exit_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


class _Raiser:
    """Stands for Typer's command and raises instead of parsing."""

    def __init__(self, error):
        self._error = error

    def main(self, **_):
        raise self._error


def _raise_in_command(monkeypatch, error):
    monkeypatch.setattr(app_module.typer.main, "get_command", lambda _: _Raiser(error))


def test_a_user_error_is_one_line_and_exit_2(run, monkeypatch):
    _raise_in_command(monkeypatch, ClickvolError("two\nlines"))
    assert run() == (2, "", "error: two lines\n")


def test_an_unexpected_error_asks_for_a_report_and_exits_1(run, monkeypatch):
    _raise_in_command(monkeypatch, ZeroDivisionError("division by zero"))
    code, out, err = run()
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: unexpected ZeroDivisionError: division by zero; please report")
    assert "--debug" in err


def test_no_memory_is_told_without_asking_for_a_report(run, monkeypatch):
    _raise_in_command(monkeypatch, MemoryError())
    code, _, err = run()
    assert code == 1
    assert "not enough memory" in err
    assert "report" not in err


@pytest.mark.parametrize("words", [["--debug", "info"], ["info", "--debug"]])
def test_debug_shows_the_traceback_before_and_after_the_command(run, monkeypatch, words):
    _raise_in_command(monkeypatch, ClickvolError("a mistake"))
    code, _, err = run(*words)
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: a mistake\n")


def test_ctrl_c_exits_130_without_a_traceback(run, monkeypatch):
    _raise_in_command(monkeypatch, KeyboardInterrupt())
    code, _, err = run()
    assert code == 130
    assert err == "interrupted\n"


def test_a_closed_pipe_is_no_error_message():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "clickvol", "models", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_reader_that_has_seen_enough_is_no_error():
    program = ForkedProgram(["models", "list"])
    program.stdout.close()
    assert program.communicate() == ("", "")
    assert program.poll() == 1

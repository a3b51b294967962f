"""nnU-Net's environment: what pip is told, and what is never touched."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from clickvol.bridges.nnunet_environment import (
    NNUNET_VERSION,
    check_environment,
    make_environment,
)
from clickvol.errors import ConfigError, ExternalProgramError

# A Python that makes "environments": the Python in them writes down its words and holds what pip got.
FAKE_PYTHON = f"""#!{sys.executable}
import json, pathlib, shutil, sys

me, words = pathlib.Path(sys.argv[0]), sys.argv[1:]
with (me.parent / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[:2] == ["-m", "venv"]:
    folder = pathlib.Path(words[2])
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "pyvenv.cfg").touch()
    for name in ("python", "pip"):
        shutil.copy(me, folder / "bin" / name)
elif words[:3] == ["-m", "pip", "install"]:
    if (me.parent / "full").exists():
        sys.exit("ERROR: No space left on device")
    held = dict(word.split("==") for word in words if "==" in word)
    (me.parent / "held.json").write_text(json.dumps(held))
elif not (me.parent / "held.json").exists():
    sys.exit("ModuleNotFoundError: No module named 'nnunetv2'")
elif words[0] == "-c" and "json" in words[1]:
    held = json.loads((me.parent / "held.json").read_text())
    facts = {{"nnunet": held["nnunetv2"], "torch": held["torch"], "cuda": True}}
    print(json.dumps(facts | {{"package": str(me.parents[1] / "lib" / "nnunetv2")}}))
"""


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "interpreter" / "python3"
    path.parent.mkdir()
    path.write_text(FAKE_PYTHON)
    path.chmod(0o755)
    return str(path)


def calls_in(folder):
    return [json.loads(line) for line in (Path(folder) / "calls.jsonl").read_text().splitlines()]


OUR_TORCH = importlib.metadata.version("torch").split("+", maxsplit=1)[0]


def test_torch_is_held_on_the_line_of_nnunet(python, tmp_path):
    """Without it pip takes the newest torch, which torchvision asks for."""
    folder = tmp_path / "new" / "venv"
    made = make_environment(folder, python=python, pip_arguments=["--no-cache-dir"])
    assert made.nnunet_version == NNUNET_VERSION
    assert made.torch_version == OUR_TORCH
    assert made.has_cuda
    assert made.package == folder / "lib" / "nnunetv2"
    assert made.program("nnUNetv2_train") == str(folder / "bin" / "nnUNetv2_train")
    assert calls_in(Path(python).parent) == [["-m", "venv", str(folder)]]
    (installed,) = [words for words in calls_in(folder / "bin") if words[:2] == ["-m", "pip"]]
    assert installed == [
        *("-m", "pip", "install", "--disable-pip-version-check"),
        *(f"torch=={OUR_TORCH}", f"nnunetv2=={NNUNET_VERSION}", "--no-cache-dir"),
    ]


def test_a_requirement_among_the_arguments_replaces_ours(python, tmp_path):
    folder = tmp_path / "venv"
    made = make_environment(folder, python=python, pip_arguments=["torch==2.8.0"])
    assert made.torch_version == "2.8.0"
    (installed,) = [words for words in calls_in(folder / "bin") if words[:2] == ["-m", "pip"]]
    assert [word for word in installed if word.startswith("torch")] == ["torch==2.8.0"]


def test_offline_pip_reaches_no_index(python, tmp_path):
    folder = tmp_path / "venv"
    make_environment(folder, python=python, offline=True)
    (installed,) = [words for words in calls_in(folder / "bin") if words[:2] == ["-m", "pip"]]
    assert "--no-index" in installed


def test_one_that_is_right_stays(python, tmp_path):
    folder = tmp_path / "venv"
    make_environment(folder, python=python)
    before = len(calls_in(folder / "bin"))
    make_environment(folder, python=python)
    assert len(calls_in(Path(python).parent)) == 1
    assert len(calls_in(folder / "bin")) == before + 1  # the question what it holds


def test_one_that_failed_is_finished_by_the_same_command(python, tmp_path):
    (Path(python).parent / "full").touch()  # of the interpreter, not of the environment's copy
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "full").touch()
    (folder / "clickvol-setup.log").touch()
    with pytest.raises(ExternalProgramError, match="pip failed: ERROR: No space left on device; "):
        make_environment(folder, python=python)
    (folder / "bin" / "full").unlink()
    assert make_environment(folder, python=python).nnunet_version == NNUNET_VERSION
    assert len(calls_in(Path(python).parent)) == 1


def test_stages_are_told(python, tmp_path):
    stages = []
    make_environment(tmp_path / "venv", python=python, on_stage=stages.append)
    assert [stage.split()[0] for stage in stages] == ["looking", "making", "installing", "trying"]


@pytest.mark.parametrize("inner", [".", "lib/nnunet", ".."])
def test_ours_is_never_touched(python, inner):
    folder = Path(sys.prefix) / inner
    for action in (check_environment, lambda f: make_environment(f, python=python)):
        with pytest.raises(ConfigError, match="in the environment that runs clickvol"):
            action(folder)


def test_what_holds_something_else_is_not_touched(python, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").touch()
    with pytest.raises(ConfigError, match=r"holds something else than nnunetv2 .* is not touched"):
        make_environment(folder, python=python)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="holds something else"):
        make_environment(file, python=python)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_python_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no Python 'python0.9'; give --python"):
        make_environment(tmp_path / "venv", python="python0.9")
    assert not (tmp_path / "venv").exists()


def test_what_is_no_environment_says_how_to_make_one(tmp_path):
    expected = f"{tmp_path} is not a virtual environment; make it with clickvol nnunet setup --venv {tmp_path}"
    with pytest.raises(ConfigError) as caught:
        check_environment(tmp_path)
    assert str(caught.value) == expected


def test_another_version_is_refused(venv):
    facts = {"nnunet": "2.5.1", "torch": "2.13.0", "cuda": False, "package": "/p"}
    (venv / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=rf"holds nnunetv2 2.5.1, .* written for {NNUNET_VERSION}"):
        check_environment(venv)


def test_an_environment_without_nnunet_says_what_its_python_said(venv):
    (venv / "bin" / "python").write_text("#!/bin/sh\necho 'No module named torch' >&2; exit 1\n")
    with pytest.raises(ExternalProgramError, match="No module named torch; make it with clickvol"):
        check_environment(venv)


def test_a_python_that_answers_something_else(venv):
    (venv / "facts.json").write_text("hello")
    with pytest.raises(ConfigError, match="does not say what it holds"):
        check_environment(venv)

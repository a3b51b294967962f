"""The files in deploy/: as far as they can be checked where neither systemd nor a container runs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from clickvol.cli import serve as command
from clickvol.version import __version__

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
OPTIONS = {f"--{name.replace('_', '-')}" for name in command.serve.__kwdefaults__}


def joined(name):
    """The lines of a file, those that go on as one, without comments."""
    text = (DEPLOY / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def unit():
    return dict(line.partition("=")[::2] for line in joined("clickvol.service") if "=" in line)


def test_the_unit_starts_the_command_with_options_that_it_has():
    words = shlex.split(unit()["ExecStart"])
    assert words[:2] == ["/opt/clickvol/bin/clickvol", "serve"]
    used = {word for word in words if word.startswith("--")}
    assert used - OPTIONS == set()
    assert {"--token-file", "--state-folder", "--trusted-proxy"} <= used


def test_the_unit_keeps_nothing_readable_for_others():
    known = unit()
    assert known["UMask"] == "0077"
    assert known["ProtectSystem"] == "strict"
    assert known["CapabilityBoundingSet"] == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    text = (DEPLOY / "clickvol.service").read_text(encoding="utf-8")
    # It asks whether the program is there.
    place = tmp_path / "clickvol.service"
    place.write_text(text.replace("/opt/clickvol/bin/clickvol", sys.executable), encoding="utf-8")
    words = ["systemd-analyze", "verify", "--recursive-errors=no", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    place.write_text(text.replace("ProtectSystem=strict", "ProtectSystm=strict"), encoding="utf-8")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "ProtectSystm" in done.stderr


def test_the_container_serves_with_options_that_there_are_and_copies_what_there_is():
    lines = joined("Containerfile")
    known = "FROM ARG COPY RUN USER VOLUME EXPOSE HEALTHCHECK STOPSIGNAL ENTRYPOINT CMD"
    assert {line.split()[0] for line in lines} <= set(known.split())
    (serving,) = [line for line in lines if line.startswith("CMD")]
    words = json.loads(serving.removeprefix("CMD"))
    assert {word for word in words if word.startswith("--")} - OPTIONS == set()
    (copied,) = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert copied == ["constraints.txt", "dist/clickvol-*.whl"]
    assert (ROOT / copied[0]).is_file()
    assert [line.split()[1] for line in lines if line.startswith("USER")] == ["10001"]
    order = [line.split()[0] for line in lines]
    assert order.index("USER") > order.index("RUN")
    (probe,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    assert "/readyz" in probe


def test_the_shell_of_the_container_is_whole():
    (run,) = [line.removeprefix("RUN ") for line in joined("Containerfile") if line.startswith("RUN")]
    assert subprocess.run(["sh", "-n", "-c", run], check=False).returncode == 0


def test_the_recipe_for_conda_needs_what_the_wheel_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["serve"], *(n for n in extras["dicom"] if "highdicom" in n)]
    names = {"torch": "pytorch", "blosc2": "python-blosc2", "prometheus-client": "prometheus_client"}
    bounds = dict(re.fullmatch(r"([\w-]+)(>=.+)", need).groups() for need in reversed(wanted))
    text = (DEPLOY / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    written = re.findall(r"^    - ([\w-]+) (>=[\d.]+)$", text.partition("  run:\n")[2], flags=re.MULTILINE)
    assert dict(written) == {names.get(name, name.lower()): bound for name, bound in bounds.items()}
    assert f'version: "{__version__}"' in text
    assert f'python_min: "{project["requires-python"].removeprefix(">=")}"' in text
    assert "- clickvol = " + project["scripts"]["clickvol"] in text

"""The files in deploy/: as far as they can be checked where neither systemd nor a container runs."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clickvol.cli import serve as command

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

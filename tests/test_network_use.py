"""Nothing is downloaded unasked and nothing is reported: one module can reach out, one command uses it.

Another module runs nnU-Net's programs, and `clickvol nnunet setup` installs them with pip.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from clickvol.methods.registry import METHODS

PACKAGE = Path(__file__).parents[1] / "src" / "clickvol"
SOURCES = {p.relative_to(PACKAGE).as_posix(): p for p in sorted(PACKAGE.rglob("*.py"))}

REACHING_MODULES = {
    *(
        "aiohttp",
        "asyncio",
        "dask",
        "dicomweb_client",
        "distributed",
        "ensurepip",
        "ftplib",
        "gdown",
        "http",
        "httplib2",
        "httpx",
    ),
    *("huggingface_hub", "imaplib", "multiprocessing.connection", "nntplib", "pip", "pooch"),
    *("poplib", "pty", "pycurl", "pynetdicom", "requests", "smtplib", "socket", "socketserver", "ssl"),
    *(
        "subprocess",
        "telnetlib",
        "torch.hub",
        "urllib.request",
        "urllib3",
        "webbrowser",
        "wget",
        "xmlrpc",
    ),
    *("os.system", "os.popen"),
}
REACHING_CALLS = {
    *("hub.load", "os.system", "os.popen", "load_state_dict_from_url", "download_url_to_file"),
    *("urlopen", "urlretrieve"),
}


def imported_names(node):
    """Return the modules that a node brings in, with what it takes from them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        # A name that is put together at run time could be anything.
        return [a.value if isinstance(a, ast.Constant) else "?" for a in node.args[:1]]
    return []


def reaching_call(node):
    """Return the call of a node where it could bring in a file of somebody else's, else ""."""
    if not isinstance(node, ast.Call):
        return ""
    called = ast.unparse(node.func)
    if called.endswith("from_pretrained"):
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        return "" if words.get("local_files_only") == "True" else "from_pretrained"
    return next((name for name in REACHING_CALLS if f".{called}".endswith(f".{name}")), "")


def reaches_out(source):
    """Return what in a source could open a connection or start another program."""
    result = set()
    for node in ast.walk(ast.parse(source)):
        for name in imported_names(node):
            parts = name.split(".")
            starts = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
            result |= starts & (REACHING_MODULES | {"?"})
        result |= {reaching_call(node)} - {""}
    return result


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("import urllib.request", {"urllib.request"}),
        ("from urllib.parse import quote", set()),
        ("def f():\n    from http import client", {"http"}),
        ("from os import system", {"os.system"}),
        ("import os\nos.system('x')", {"os.system"}),
        ("import subprocess as s", {"subprocess"}),
        ("import torch\ntorch.hub.load('x')", {"hub.load"}),
        ("from torch import hub", {"torch.hub"}),
        ("from importlib import import_module\nimport_module('requests')", {"requests"}),
        ("import importlib\nimportlib.import_module(name)", {"?"}),
        ("A.from_pretrained('x')", {"from_pretrained"}),
        ("A.from_pretrained('x', local_files_only=False)", {"from_pretrained"}),
        ("A.from_pretrained('x', local_files_only=True)", set()),
        ("import json, os.path\ntorch.load('x')", set()),
    ],
)
def test_the_check_sees_what_reaches_out(source, result):
    assert reaches_out(source) == result


def test_only_the_download_module_reaches_out():
    result = {n: reaches_out(p.read_text(encoding="utf-8")) for n, p in SOURCES.items()}
    result = {name: reaches for name, reaches in result.items() if reaches}
    assert result == {
        "weights/download.py": {"http", "ssl", "subprocess", "urllib.request"},
        # nnU-Net's programs; pip is one of them, for `clickvol nnunet setup`.
        "bridges/program.py": {"subprocess"},
        # git, for the commit that a run was made with.
        "training/provenance.py": {"subprocess"},
        # Archives that the user names, for scans from them and masks into them.
        "io/dicom/remote/dicomweb.py": {"dicomweb_client", "requests"},
        "io/dicom/remote/sending.py": {"pynetdicom"},
        # A script's session on a server that it names.
        "server/client.py": {"httpx", "ssl"},
        # The server's certificate, and the event loop's time limit for a handshake.
        "server/http/running.py": {"asyncio", "ssl"},
        # The event loop that waits for the model's thread.
        "server/worker.py": {"asyncio"},
        # Worker processes on this machine, or those of a scheduler that the user names.
        "parallel/cluster.py": {"dask", "distributed"},
        "parallel/rows.py": {"distributed"},
        # The browser that shows the page of `clickvol view`.
        "cli/view.py": {"webbrowser"},
        # The package's own names, imported when they are first used.
        "__init__.py": {"?"},
        # The pages of methods, all of this package.
        "methods/registry.py": {"?"},
    }
    assert all(page.module.startswith("clickvol.") for page in METHODS.values())


@pytest.mark.parametrize(
    ("module", "users"),
    [
        ("weights.download", {"weights/fetch.py", "cli/models/fetch.py"}),
        ("weights.fetch", {"cli/models/fetch.py"}),
        ("cli.models.fetch", {"cli/models/app.py"}),
        ("bridges.program", {"bridges/nnunet_environment.py", "bridges/nnunet_run.py"}),
        ("bridges.nnunet_run", {"cli/experiments/nnunet.py", "reproduction/arms.py"}),
        ("cli.experiments.nnunet", {"cli/app.py"}),
    ],
)
def test_only_the_command_leads_to_it(module, users):
    naming = {n for n, p in SOURCES.items() if module in p.read_text(encoding="utf-8")}
    assert naming == users


WATCHED = """
import sys

WATCHED = ("socket.", "urllib.", "subprocess.", "os.exec", "os.posix_spawn", "os.system")

def watch(event, arguments):
    if event.startswith(WATCHED):
        raise SystemExit(f"reached out: {event}")

sys.addaudithook(watch)
from clickvol.cli.app import main
print([main(line.split()) for line in sys.argv[1:]], file=sys.stderr)
"""


def run_watched(*lines):
    """Run commands in one process, which ends when it opens a socket or starts a program.

    Returns:
        The lines on stderr; the last has the exit codes, or says what was watched and happened.
    """
    words = [sys.executable, "-c", WATCHED, *lines]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLICKVOL_OFFLINE", raising=False)
    return tmp_path / "cache"


def test_these_commands_touch_no_network_and_write_nothing(cache):
    *lines, codes = run_watched(
        "models list",
        "models list --json",
        "models show promise3d-small",
        "models fetch promise3d-small",
        "models fetch litemedsam --offline",
        "models fetch sam-vit-h --offline",
        "models fetch promise3d-official",
        "models fetch nonsense",
    )
    assert codes == "[0, 0, 0, 0, 2, 2, 2, 2]"
    assert len(lines) == 4
    assert not cache.exists()


@pytest.mark.parametrize("entry", ["litemedsam", "sam-vit-b"])
def test_the_watch_sees_a_fetch(cache, entry):
    """So the other commands were really watched."""
    assert "reached out" in run_watched(f"models fetch {entry}")[-1]


def test_the_environment_closes_the_network(cache, monkeypatch):
    monkeypatch.setenv("CLICKVOL_OFFLINE", "1")
    line, codes = run_watched("models fetch sam-vit-b")
    assert codes == "[2]"
    assert line.startswith("error: offline, and sam_vit_b_01ec64.pth is not in the cache")

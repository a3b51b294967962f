import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from clickvol.errors import ConfigError, ModelNotFoundError, OutputError
from clickvol.weights.cache import (
    cache_folder_for,
    cached_model_folder,
    cached_original,
    hold_lock,
    is_cached,
    is_intact,
    is_offline,
    make_folder,
    require_space,
)
from clickvol.weights.registry import KnownFile, find_entry

HOLDER = """
import sys, time
from pathlib import Path
from clickvol.weights.cache import hold_lock
with hold_lock(Path(sys.argv[1]), on_wait=lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def start_holder(tmp_path):
    """Start a second process that holds a lock until it is killed."""
    started = []

    def start(lock):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_places_in_the_cache(cache):
    assert cached_original("a.pth") == cache / "originals" / "a.pth"
    assert cached_model_folder("sam-vit-b") == cache / "models" / "sam-vit-b"
    assert not cache.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", ".hidden", "a\n", "/etc"])
def test_a_name_cannot_lead_out_of_the_cache(cache, name):
    for place in (cached_original, cached_model_folder):
        with pytest.raises(ModelNotFoundError, match="is no name of weights"):
            place(name)


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"CLICKVOL_CACHE": "/x", "XDG_CACHE_HOME": "/y"}, "linux", "/x"),
        ({"CLICKVOL_CACHE": "~/x"}, "linux", "/home/me/x"),
        ({"CLICKVOL_CACHE": "/x"}, "win32", "/x"),
        ({"XDG_CACHE_HOME": "/y"}, "linux", "/y/clickvol"),
        ({"XDG_CACHE_HOME": "y"}, "linux", "/home/me/.cache/clickvol"),
        ({"CLICKVOL_CACHE": "", "XDG_CACHE_HOME": ""}, "linux", "/home/me/.cache/clickvol"),
        ({}, "linux", "/home/me/.cache/clickvol"),
        ({"XDG_CACHE_HOME": "/y"}, "darwin", "/home/me/Library/Caches/clickvol"),
        ({"LOCALAPPDATA": "/l"}, "win32", "/l/clickvol"),
        ({}, "win32", "/home/me/AppData/Local/clickvol"),
    ],
)
def test_the_cache_folder_of_an_environment(monkeypatch, environment, platform, expected):
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder_for(environment, platform=platform) == Path(expected)


def test_a_relative_cache_folder_does_not_move_with_the_present_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cache_folder_for({"CLICKVOL_CACHE": "c"}, platform="linux") == tmp_path / "c"


def test_without_a_home_the_message_says_what_to_set(monkeypatch):
    def no_home():
        raise RuntimeError

    monkeypatch.delenv("CLICKVOL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="set CLICKVOL_CACHE to a folder"):
        cached_original("a")
    monkeypatch.setenv("CLICKVOL_CACHE", "/x")
    assert cached_original("a") == Path("/x/originals/a")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        ("", False),
        ("0", False),
        ("False", False),
        (" no ", False),
        ("OFF", False),
        ("1", True),
        ("true", True),
        ("yes", True),
        ("of", True),  # a slip of the pen keeps the network closed
    ],
)
def test_offline_by_the_environment(monkeypatch, value, expected):
    monkeypatch.delenv("CLICKVOL_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("CLICKVOL_OFFLINE", value)
    assert is_offline() is expected


def test_a_file_is_intact_with_its_length_and_its_hash(tmp_path):
    path = tmp_path / "a"
    known = KnownFile(name="a", bytes=3, sha256=hashlib.sha256(b"abc").hexdigest())
    assert not is_intact(path, known)
    path.write_bytes(b"abc")
    assert is_intact(path, known)
    path.write_bytes(b"abd")
    assert not is_intact(path, known)
    path.write_bytes(b"abcd")
    assert not is_intact(path, known)
    assert not is_intact(path, known.model_copy(update={"bytes": 4}))
    assert not is_intact(tmp_path, known)


def test_what_is_cached_is_seen_without_hashing(cache):
    entry, by_hand = find_entry("sam-vit-b"), find_entry("clip-vit-l-14-text")
    assert not is_cached(entry)
    assert not is_cached(by_hand)
    original = cached_original("sam_vit_b_01ec64.pth")
    original.parent.mkdir(parents=True)
    original.write_bytes(b"")
    assert not is_cached(entry)
    os.truncate(original, entry.source.original.bytes)  # sparse: takes no room
    assert is_cached(entry)
    folder = cached_model_folder("clip-vit-l-14-text")
    folder.mkdir(parents=True)
    assert not is_cached(by_hand)
    (folder / "model.safetensors").write_bytes(b"")
    assert is_cached(by_hand)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set CLICKVOL_CACHE to another one"):
        make_folder(tmp_path / "file" / "cache")
    with pytest.raises(OutputError, match="set CLICKVOL_CACHE to another folder"):
        hold_lock(tmp_path / "file" / "lock", on_wait=lambda: None).__enter__()


def test_a_full_disk_is_seen_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    require_space(tmp_path, 30_000_000)
    with pytest.raises(OutputError, match=r"40 MB are to be written .* has 100 MB free"):
        require_space(tmp_path, 40_000_000)


def test_a_lock_that_nobody_holds_is_taken_at_once(tmp_path):
    waited = []
    for _ in range(2):
        with hold_lock(tmp_path / "lock", on_wait=lambda: waited.append(1)):
            pass
    assert waited == []
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_lock_is_given_back_after_a_failure(tmp_path):
    def fail():
        with hold_lock(tmp_path / "lock", on_wait=lambda: None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with hold_lock(tmp_path / "lock", on_wait=lambda: pytest.fail("it is still held")):
        pass


def test_a_process_waits_for_another_and_goes_on_when_that_is_killed(tmp_path, start_holder):
    holder = start_holder(tmp_path / "lock")
    waited = []

    def kill_holder():
        waited.append(1)
        holder.kill()

    with hold_lock(tmp_path / "lock", on_wait=kill_holder):
        assert holder.wait() == -9
    assert waited == [1]


def test_waiting_can_be_interrupted(tmp_path, start_holder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    start_holder(tmp_path / "lock")
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hold_lock(tmp_path / "lock", on_wait=lambda: None).__enter__()

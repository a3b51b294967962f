import hashlib
import os
import shutil
from types import SimpleNamespace

import pytest

from clickvol.errors import ConfigError, ModelNotFoundError, OutputError
from clickvol.weights.cache import (
    cached_model_folder,
    cached_original,
    is_cached,
    is_intact,
    is_offline,
    require_space,
)
from clickvol.weights.registry import KnownFile, find_entry


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
    ("chosen", "xdg", "expected"),
    [
        ("/x", "/y", "/x"),
        ("~/x", "/y", "/home/me/x"),
        ("x", "/y", "here/x"),  # does not move with the present folder
        ("", "/y", "/y/clickvol"),
        ("", "y", "/home/me/.cache/clickvol"),
        ("", "", "/home/me/.cache/clickvol"),
    ],
)
def test_the_cache_folder_of_an_environment(monkeypatch, tmp_path, chosen, xdg, expected):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {"HOME": "/home/me", "CLICKVOL_CACHE": chosen, "XDG_CACHE_HOME": xdg}.items():
        monkeypatch.setenv(name, value)
    assert cached_original("a") == tmp_path / expected / "originals" / "a"


def test_without_a_home_the_message_says_what_to_set(monkeypatch):
    def nobody(_):
        raise KeyError

    for name in ("CLICKVOL_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match="set CLICKVOL_CACHE to a folder"):
        cached_original("a")


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


def test_a_full_disk_is_seen_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    require_space(tmp_path, 30_000_000)
    with pytest.raises(OutputError, match=r"40 MB are to be written .* has 100 MB free"):
        require_space(tmp_path, 40_000_000)

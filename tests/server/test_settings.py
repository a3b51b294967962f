from pathlib import Path

import pytest

from clickvol.errors import ConfigError
from clickvol.server.settings import ServerSettings, default_state_folder, is_loopback_name

TOKEN = "t" * 16


def settings(**words):
    return ServerSettings(state_folder=Path("state"), **words)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "scanner.example", ""])
def test_a_host_that_others_reach_needs_a_token(host):
    with pytest.raises(ConfigError, match="needs a token"):
        settings(host=host)
    assert settings(host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "127.1.2.3"])
def test_loopback_needs_none(host):
    assert settings(host=host).is_loopback


@pytest.mark.parametrize("name", ["127.0.0.1.evil.example", "localhost.evil.example", "", "1270.0.1"])
def test_what_only_looks_like_loopback_is_not(name):
    assert not is_loopback_name(name)


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "ü" * 20, "with a space in it"])
def test_a_weak_token_is_refused(token):
    with pytest.raises(ConfigError, match="too short or not plain"):
        settings(token=token)


def test_a_token_does_not_show_in_messages():
    assert TOKEN not in repr(settings(token=TOKEN))


@pytest.mark.parametrize(
    "words",
    [
        {"port": 65536},
        {"port": -1},
        {"max_sessions": 0},
        {"memory_mb": 0},
        {"lease_seconds": 0},
        {"root": Path("nowhere")},
        {"start_path": Path("scan.nii.gz")},
        {"trusted_proxies": ("10.0.0.1",)},
        {"trusted_proxies": ("proxy.example",), "token": TOKEN},
        {"trusted_proxies": ("10.0.0.1/8",), "token": TOKEN},
        {"tls_key": Path("key.pem")},
        *({"root_path": path} for path in ("/", "a", "/a/", "//", "/a?b", "/a/\n")),
    ],
)
def test_contradictions_are_refused(words):
    with pytest.raises(ConfigError):
        settings(**words)


def test_numbers_in_bytes():
    known = settings(max_upload_mb=3, memory_mb=2)
    assert (known.max_upload_bytes, known.memory_bytes) == (3 * 1024**2, 2 * 1024**2)


def test_sessions_lie_where_the_system_keeps_user_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_state_folder() == tmp_path / "clickvol" / "sessions"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_state_folder().is_absolute()

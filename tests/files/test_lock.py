import subprocess
import sys

import pytest

from clickvol.errors import ConfigError, OutputError
from clickvol.files.lock import acquire_lock, lock_or_refuse, only_process_in, wait_for_lock

HOLDER = """
import sys
from pathlib import Path
from clickvol.files.lock import acquire_lock
lock = acquire_lock(Path(sys.argv[1]), "busy")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start_holder():
    """Start a second process that holds a lock until it is killed."""
    started = []

    def start(lock):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_is_held_until_it_is_released_or_its_process_is_killed(tmp_path, start_holder):
    path = tmp_path / "lock"
    holder = start_holder(path)
    with pytest.raises(ConfigError, match="somebody is here"):
        acquire_lock(path, "somebody is here")
    holder.kill()
    holder.wait()
    lock = acquire_lock(path, "busy")
    with pytest.raises(ConfigError, match="busy"):
        acquire_lock(path, "busy")
    lock.release()
    acquire_lock(path, "busy").release()


def test_a_lock_never_changes_the_content_of_its_file(tmp_path):
    path = tmp_path / "lock"
    path.write_text("of an earlier version")
    acquire_lock(path, "busy").release()
    assert path.read_text() == "of an earlier version"


def test_an_open_file_is_locked_until_it_is_closed(tmp_path):
    path = tmp_path / "record"
    with path.open("ab") as first, path.open("ab") as second:
        lock_or_refuse(first.fileno(), "busy")
        with pytest.raises(ConfigError, match="in use elsewhere"):
            lock_or_refuse(second.fileno(), "in use elsewhere")
        first.close()
        lock_or_refuse(second.fileno(), "busy")


def test_a_lock_that_nobody_holds_is_not_waited_for(tmp_path):
    for _ in range(2):
        with wait_for_lock(tmp_path / "lock", on_wait=lambda: pytest.fail("nobody holds it")):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_lock_is_given_back_after_a_failure(tmp_path):
    for held in (
        lambda: wait_for_lock(tmp_path / ".lock", on_wait=lambda: None),
        lambda: only_process_in(tmp_path),
    ):
        with pytest.raises(KeyboardInterrupt), held():
            raise KeyboardInterrupt
        acquire_lock(tmp_path / ".lock", "it is still held").release()


def test_a_process_waits_for_another_and_goes_on_when_that_is_killed(tmp_path, start_holder):
    holder = start_holder(tmp_path / "lock")
    waited = []

    def kill_holder():
        waited.append(1)
        holder.kill()

    with wait_for_lock(tmp_path / "lock", on_wait=kill_holder):
        assert holder.wait() == -9
    assert waited == [1]


def test_a_folder_is_made_and_given_back(tmp_path):
    for _ in range(2):
        with only_process_in(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_is_for_one_process(tmp_path, start_holder):
    start_holder(tmp_path / ".lock")
    with pytest.raises(ConfigError, match="another process is working in"), only_process_in(tmp_path):
        pass


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"), only_process_in(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match=r"cannot lock .*; choose a folder on a local disk"):
        acquire_lock(tmp_path / "file" / "lock", "busy")

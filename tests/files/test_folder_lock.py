import subprocess
import sys

import pytest

from clickvol.errors import ConfigError, OutputError
from clickvol.files.folder_lock import only_process_in

HOLD = (
    "import sys, pathlib; from clickvol.files.folder_lock import only_process_in\n"
    "with only_process_in(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


def test_a_folder_is_made_and_given_back(tmp_path):
    for _ in range(2):
        with only_process_in(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(ConfigError, match="another process is working in"),
            only_process_in(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
        with only_process_in(tmp_path):
            pass


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"), only_process_in(tmp_path / "file"):
        pass

import re
import threading
import time

import psutil
import pytest

from clickvol.errors import ConfigError
from clickvol.parallel.cluster import start_workers
from clickvol.parallel.rows import RowFailure, run_rows
from reference import row_work
from reference.dask_processes import address_of, scheduler_and_worker


def listening():
    """Return the hosts at which this process and its children listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [one for process in processes for one in process.net_connections(kind="inet")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def test_workers_of_this_machine_listen_to_this_machine_alone_and_need_its_key(tmp_path):
    with start_workers(1) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        assert listening() == {"127.0.0.1"}
        with pytest.raises(ConfigError, match="cannot reach a Dask scheduler"):
            run_rows(row_work.do, [("ok", str(tmp_path), 1)], lambda *_: None, scheduler=address)
    assert listening() == set()
    assert row_work.attempts(tmp_path, "ok", 1) == []


def test_workers_that_die_while_they_start_are_replaced_too(tmp_path):
    rows = [("where", str(tmp_path), number) for number in range(4)]

    def kill_all_workers():
        while not row_work.attempts(tmp_path, "where", 0):
            time.sleep(0.05)
        for _ in range(6):
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
            time.sleep(0.3)

    killer = threading.Thread(target=kill_all_workers)
    killer.start()
    seen = {}
    run_rows(row_work.do, rows, seen.__setitem__, workers=2)
    killer.join()
    assert set(seen) == set(rows)
    assert [outcome for outcome in seen.values() if isinstance(outcome, RowFailure)] == []


def test_a_scheduler_that_exists_does_the_rows(tmp_path, monkeypatch):
    folder = str(tmp_path)
    with scheduler_and_worker(tmp_path) as (file, scheduler):
        address = address_of(file)
        seen = {}
        rows = [("ok", folder, 1), ("odd", folder, 2), ("crash-once", folder, 3)]
        run_rows(row_work.do, rows, seen.__setitem__, scheduler=address)
        assert list(map(seen.get, rows)) == [
            "ok 1", RowFailure("unexpected KeyError: 'an\\nodd row'"), "crash-once 3",
        ]  # fmt: skip
        with pytest.raises(ConfigError, match="this is wrong for all rows"):
            run_rows(row_work.do, [("stop", folder, 4)], seen.__setitem__, scheduler=address)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        run_rows(row_work.do, [("relative", str(tmp_path / "here"), 1)], seen.__setitem__, scheduler=address)
        assert seen["relative", str(tmp_path / "here"), 1] is True
        # The cluster lives on, and its file is as good as its address.
        run_rows(row_work.do, [("ok", folder, 5)], seen.__setitem__, scheduler=str(file))
        assert seen["ok", folder, 5] == "ok 5"

        monkeypatch.setattr("clickvol.parallel.cluster._CONNECT_SECONDS", 1)
        rows = [("ok", folder, 6), ("slow", folder, 7)]
        with pytest.raises(ConfigError, match="the scheduler is gone; the same command again"):
            run_rows(row_work.do, rows, lambda *_: scheduler.kill(), scheduler=address)
    with pytest.raises(ConfigError, match=f"cannot reach a Dask scheduler at {re.escape(address)}"):
        run_rows(row_work.do, rows, seen.__setitem__, scheduler=address)


def test_a_cluster_with_other_packages_is_refused_in_a_line(tmp_path):
    with scheduler_and_worker(tmp_path, python_path=()) as (file, _):  # no folder `reference` there
        row = ("ok", str(tmp_path), 1)
        with pytest.raises(ConfigError, match=r"the cluster cannot do the rows \(.*need clickvol") as caught:
            run_rows(row_work.do, [row], lambda *_: None, scheduler=address_of(file))
    assert "\n" not in str(caught.value)

import os

import pytest

from clickvol.errors import ConfigError
from clickvol.parallel.rows import RowFailure, check_workers, run_rows, worker_number
from reference import row_work

REASONS = ["unexpected KeyError: 'an\\nodd row'", "there is not enough memory for this scan; use fewer workers"]
AGAIN = "its process died again and again, perhaps of a lack of memory; use fewer workers"


def outcomes_of(rows, **options):
    outcomes = {}
    run_rows(row_work.do, rows, lambda row, outcome: outcomes.setdefault(row, []).append(outcome), **options)
    assert set(outcomes) == set(rows)
    assert all(len(once) == 1 for once in outcomes.values())
    return [outcomes[row][0] for row in rows]


@pytest.fixture
def rows_of(tmp_path):
    """Make rows of words."""
    return lambda words: [(word, str(tmp_path), number) for number, word in enumerate(words.split())]


def test_one_worker_is_this_process(rows_of, tmp_path):
    seen = []
    rows = rows_of("ok odd memory ok")
    run_rows(row_work.do, rows, lambda row, outcome: seen.append((row, outcome)))
    assert [row for row, _ in seen] == rows
    assert [outcome for _, outcome in seen] == ["ok 0", *map(RowFailure, REASONS), "ok 3"]
    assert row_work.attempts(tmp_path, "ok", 0) == [str(os.getpid())]
    assert worker_number() == 0


def test_an_error_of_the_user_ends_everything(rows_of, tmp_path):
    with pytest.raises(ConfigError, match="this is wrong for all rows"):
        run_rows(row_work.do, rows_of("stop ok"), lambda *_: None)
    assert row_work.attempts(tmp_path, "ok", 1) == []


def test_workers_share_the_rows_and_one_that_dies_is_replaced(rows_of, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    first = outcomes_of(rows_of("crash crash-once odd memory ok where where where where"), workers=2)
    assert first[:5] == [RowFailure(AGAIN), "crash-once 1", *map(RowFailure, REASONS), "ok 4"]
    # Twice beside other rows, twice alone.
    processes = row_work.attempts(tmp_path, "crash", 0)
    assert len(set(processes)) == len(processes) == 4
    assert str(os.getpid()) not in processes
    assert len(row_work.attempts(tmp_path, "crash-once", 1)) >= 2
    places = first[5:]
    assert {number for number, _, _, _ in places} == {0, 1}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, usable // 2)
    assert {tuple(place[2:]) for place in places} == {(str(threads), threads)}
    assert "OMP_NUM_THREADS" not in os.environ


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ConfigError, match="0 workers do nothing; give at least 1"):
        run_rows(row_work.do, [], lambda *_: None, workers=0)
    with pytest.raises(ConfigError, match="2 workers on this machine and the scheduler tcp://a:1 exclude"):
        check_workers(2, "tcp://a:1")
    run_rows(row_work.do, [], lambda *_: None, workers=2)  # no row, no cluster

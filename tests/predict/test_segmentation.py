"""Parts under clicks, and time."""

import time

import numpy as np

from clickvol.predict.segmentation import Stopwatch, keep_clicked


def test_keep_clicked_keeps_the_part_under_the_click():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [1, 2, 5, 6, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 2.2])])
    assert np.flatnonzero(kept).tolist() == [1, 2]


def test_keep_clicked_keeps_every_clicked_part():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [1, 4, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 7.0])])
    assert np.flatnonzero(kept).tolist() == [1, 7]


def test_keep_clicked_takes_the_nearest_part_when_the_click_missed():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [0, 6, 7]] = True
    kept = keep_clicked(mask, [np.array([0.0, 0.0, 4.0])])
    assert np.flatnonzero(kept).tolist() == [6, 7]


def test_keep_clicked_keeps_everything_without_a_click():
    mask = np.zeros((1, 1, 9), dtype=bool)
    mask[0, 0, [0, 6, 7]] = True
    np.testing.assert_array_equal(keep_clicked(mask, []), mask)


def test_a_stage_does_not_count_the_stages_inside_it(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 10.0, 20.0, 24.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    stopwatch = Stopwatch()
    with stopwatch.stage("outer"), stopwatch.stage("inner"):
        pass
    with stopwatch.stage("outer"):
        pass
    assert stopwatch.seconds == {"inner": 2.0, "outer": 8.0 + 4.0}

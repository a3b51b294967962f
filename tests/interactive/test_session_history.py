"""Undo and redo through the steps of a log."""

import numpy as np
import pytest

from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.session_history import history_of
from clickvol.interactive.session_log import (
    AddStep,
    ClickStep,
    LoggedStep,
    Outcome,
    PlainStep,
    mask_hash,
)
from clickvol.io.volume import Mask


def step_of(word):
    """c1 is a click at (1, 0, 0), x1 a cancelled one, a another object; u, r and 0 are undo, redo and reset."""
    if word[0] in "cx":
        step = ClickStep(time="", object_id=1, space="ijk", position=(float(word[1:]), 0, 0), positive=True)
        outcome = Outcome(time="", kind="cancelled") if word[0] == "x" else None
        return LoggedStep(step, outcome)
    if word == "a":
        return LoggedStep(AddStep(time="", name=""), None)
    kind = {"u": "undo", "r": "redo", "0": "reset"}[word]
    return LoggedStep(PlainStep(time="", kind=kind), None)


def words_of(steps):
    names = {"add_object": "a", "reset": "0"}
    return " ".join(names.get(s.kind) or f"c{s.position[0]:.0f}" for s in steps)


@pytest.mark.parametrize(
    ("logged", "left", "position", "num_clicks"),
    [
        ("", "", 0, 0),
        ("c1 c2", "c1 c2", 2, 2),
        ("c1 x2 c3", "c1 c3", 2, 2),
        ("c1 c2 u", "c1 c2", 1, 1),
        ("c1 c2 u u r", "c1 c2", 1, 1),
        ("c1 c2 u c3", "c1 c3", 2, 2),
        ("c1 c2 u u c3 a", "c3 a", 2, 1),
        ("c1 a c2 0 c3", "c1 a c2 0 c3", 5, 1),
        ("c1 0 u", "c1 0", 1, 1),
        ("c1 u", "c1", 0, 0),
    ],
)
def test_what_is_left(logged, left, position, num_clicks):
    history = history_of([step_of(word) for word in logged.split()])
    assert (words_of(history.steps), history.position) == (left, position)
    assert history.num_clicks == num_clicks


def test_the_hash_of_a_mask_tells_where_it_is():
    grid = VolumeGrid((2, 3, 4), np.eye(4))
    masks = [np.zeros((2, 3, 4), dtype=np.uint8) for _ in range(4)]
    masks[1][0, 1, 1] = masks[2][0, 1, 2] = masks[3][0, 1, 1] = 1
    hashes = [mask_hash(Mask(mask, grid)) for mask in masks]
    assert len(set(hashes[:3])) == 3
    assert hashes[3] == hashes[1]

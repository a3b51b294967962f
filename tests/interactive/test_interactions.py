"""The list of interactions and its index."""

import pytest
from pydantic import ValidationError

from clickvol import Click
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.interactions import (
    AddObject,
    ClickInteraction,
    History,
    Move,
    Reset,
    digests_of,
)


def step_of(word):
    """c1 is a click at (1, 0, 0), a another object; u, r and 0 are undo, redo and reset."""
    if word[0] == "c":
        return ClickInteraction.at(VoxelPoint.from_ijk(float(word[1:]), 0, 0), positive=True)
    return {"a": AddObject(), "0": Reset(), "u": Move(kind="undo"), "r": Move(kind="redo")}[word]


def words_of(interactions):
    names = {"add_object": "a", "reset": "0"}
    return " ".join(names.get(s.kind) or f"c{s.position[0]:.0f}" for s in interactions)


@pytest.mark.parametrize(
    ("done", "left", "index"),
    [
        ("", "", 0),
        ("u r", "", 0),
        ("c1 c2", "c1 c2", 2),
        ("c1 c2 u", "c1 c2", 1),
        ("c1 c2 u u u r", "c1 c2", 1),
        ("c1 c2 u r r", "c1 c2", 2),
        ("c1 c2 u c3", "c1 c3", 2),
        ("c1 c2 u u c3 a", "c3 a", 2),
        ("c1 a c2 0 c3", "c1 a c2 0 c3", 5),
        ("c1 0 u", "c1 0", 1),
        ("c1 u", "c1", 0),
    ],
)
def test_undo_and_redo_move_the_index_and_an_interaction_ends_what_was_undone(done, left, index):
    history = History().after(*(step_of(word) for word in done.split()))
    assert (words_of(history.interactions), history.index) == (left, index)
    assert words_of(history.current) == " ".join(left.split()[:index])
    assert history.can_undo == (index > 0)
    assert history.can_redo == (index < len(left.split()))


def test_a_click_is_kept_as_it_was_given():
    for point, space in ((VoxelPoint(1.5, 2, 3), "ijk"), (WorldPointRAS(-1, 2.25, 3), "ras")):
        interaction = ClickInteraction.at(point, positive=False, object_id=7)
        assert interaction.space == space
        assert interaction.prompt == Click(point, foreground=False)
        again = ClickInteraction.model_validate_json(interaction.model_dump_json())
        assert again == interaction


def test_an_interaction_does_not_change():
    with pytest.raises(ValidationError):
        step_of("c1").object_id = 2


def test_a_digest_tells_the_whole_list_up_to_its_place():
    one = digests_of(map(step_of, ["c1", "a", "c2"]))
    other = digests_of(map(step_of, ["c1", "0", "c2"]))
    assert one[0] == other[0]
    assert len({*one, *other}) == 5

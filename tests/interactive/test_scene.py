"""The same list of interactions gives the same masks, however and whenever they are asked for."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickvol import Click, segment
from clickvol.errors import CancelledError, ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.interactions import AddObject, ClickInteraction, FreezeObject, Reset
from clickvol.interactive.scene import MAX_OBJECTS, Scene, SceneMasks
from clickvol.interactive.session import InteractiveSession
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.scan_predictor import ScanPredictor
from reference.random_models import random_model


@pytest.fixture(scope="module")
def model():
    return random_model(promise3d_recipe("clickvol", "tiny"))


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, shape_dhw=(12, 24, 24))


@pytest.fixture
def masks(phantom, model):
    return SceneMasks(ScanPredictor(phantom.volume, model))


def click(object_id=1, w=12, *, positive=True, overlap="yield"):
    at = ClickInteraction.at(VoxelPoint(6, 12, w), positive=positive, object_id=object_id)
    return at.model_copy(update={"overlap": overlap})


def freeze(object_id, *, frozen=True):
    return FreezeObject(object_id=object_id, frozen=frozen)


def test_objects_after_a_list():
    scene = Scene.after([click(), AddObject(name="node"), click(2), click(2, positive=False), freeze(1)])
    one, two = scene.objects
    assert (one.name, one.frozen, one.answered_at, one.shaped_at) == ("", True, 0, 4)
    assert (two.name, two.frozen, two.answered_at, two.shaped_at) == ("node", False, 3, 3)
    assert two.clicks == (Click(VoxelPoint(6, 12, 12)), Click(VoxelPoint(6, 12, 12), foreground=False))
    (only,) = Scene.after([*scene.interactions, Reset()]).objects
    assert only.clicks == ()


def test_a_click_yields_to_all_others_or_takes_from_those_that_are_not_frozen():
    scene = Scene.after([click(), AddObject(), click(2), click(), click(2, overlap="take")])
    assert [scene.sources(place)[1] for place in (0, 2, 3, 4)] == [(), (0,), (2,), ()]
    assert scene.places_above(1) == (4,)
    assert scene.places_above(2) == ()
    frozen = Scene.after([click(), freeze(1), AddObject(), click(2, overlap="take")])
    assert frozen.sources(3) == ((), (0,))
    assert frozen.frozen_sources(3) == (0,)
    assert frozen.places_above(2) == (0,)
    assert frozen.places_above(1) == ()


def test_what_is_frozen_loses_what_was_taken_from_it_for_good():
    late = Scene.after([click(), AddObject(), click(2, overlap="take"), freeze(1), freeze(2)])
    assert late.objects[0].shaped_at == 3
    assert late.sources(3) == ((0,), (2,))
    assert late.sources(4) == ((2,), (3,))


def test_no_voxel_is_in_two_objects_and_the_volumes_are_those_of_the_label_map(masks):
    for overlap in ("yield", "take"):
        scene = Scene.after([click(), AddObject(), click(2, 14, overlap=overlap)])
        label_map = masks.mask(scene, None).array
        alone = [masks.mask(scene, number).array for number in (1, 2)]
        assert not (alone[0] & alone[1]).any()
        np.testing.assert_array_equal(label_map, alone[0] + 2 * alone[1])
        counts = [known.num_voxels for known in masks.objects(scene)]
        assert counts == [int((label_map == number).sum()) for number in (1, 2)]
        whole = masks.packed(scene, 1).num_voxels
        assert counts[0] == whole if overlap == "yield" else counts[0] < whole


@pytest.mark.parametrize(
    ("interactions", "words"),
    [
        ([click(2)], "no object 2"),
        ([click(0)], "no object 0"),
        ([freeze(3)], "no object 3"),
        ([click(positive=False)], "no click inside"),
        ([click(), freeze(1), click()], "frozen"),
        ([AddObject()] * MAX_OBJECTS, "255 objects"),
        ([AddObject(), Reset(), click(2)], "no object 2"),
    ],
)
def test_lists_that_do_not_fit_together(interactions, words):
    with pytest.raises(ClickError, match=words):
        Scene.after(interactions)


def test_a_click_is_answered_from_the_clicks_on_its_object(phantom, model, masks):
    scene = Scene.after([click(), AddObject(), click(2, 4), click(w=15, positive=False, overlap="take")])
    clicks = [Click(VoxelPoint(6, 12, 12)), Click(VoxelPoint(6, 12, 15), foreground=False)]
    expected = segment(phantom.volume, clicks, model)
    np.testing.assert_array_equal(masks.mask(scene, 1).array, expected.mask.array)
    np.testing.assert_array_equal(masks.probability(scene, 1), expected.probability())
    assert masks.answer(scene, 3).clicks == tuple(clicks)


def test_what_is_cancelled_leaves_nothing(masks):
    scene = Scene.after([click()])
    with pytest.raises(CancelledError):
        masks.answer(scene, 0, cancelled=lambda: True)
    assert masks.answer(scene, 0).mask.num_voxels == masks.objects(scene)[0].num_voxels


def lists():
    """Lists that fit together: whatever does not is left out."""
    kinds = st.one_of(
        st.builds(click, st.integers(1, 3), st.integers(6, 18), positive=st.booleans()),
        st.builds(freeze, st.integers(1, 3), frozen=st.booleans()),
        st.just(AddObject()),
        st.sampled_from([Reset()]),
    )
    return st.lists(kinds, max_size=9).map(fitting)


def fitting(interactions):
    kept = [click(), AddObject()]
    for interaction in interactions:
        try:
            Scene.after([*kept, interaction])
        except ClickError:
            continue
        kept.append(interaction)
    return kept


@settings(max_examples=settings.default.max_examples // 12, suppress_health_check=list(HealthCheck))
@given(lists())
def test_asking_at_the_end_is_asking_after_every_interaction(phantom, model, interactions):
    scan = ScanPredictor(phantom.volume, model)
    step_by_step, at_the_end = SceneMasks(scan), SceneMasks(scan)
    for index in range(len(interactions) + 1):
        scene = Scene.after(interactions[:index])
        step_by_step.mask(scene, None)
    for number in (None, *range(1, len(scene.objects) + 1)):
        expected = step_by_step.mask(scene, number).array
        np.testing.assert_array_equal(at_the_end.mask(scene, number).array, expected)
    described = step_by_step.objects(scene)
    assert [o.num_voxels for o in described] == [step_by_step.mask(scene, o.id).num_voxels for o in described]
    # Frozen objects do not overlap.
    frozen = [step_by_step.mask(scene, o.id).array for o in described if o.frozen]
    assert not frozen or sum(frozen).max() <= 1


def test_a_long_chain_of_frozen_objects_is_opened_again(phantom, model):
    """As deep as there are objects: each was clicked, cut by the earlier ones and frozen."""
    session = InteractiveSession(model)
    session.set_volume(phantom.volume)
    interactions = [click(), freeze(1)]
    for number in range(2, 12):
        interactions += [AddObject(), click(number, 4 + number), freeze(number)]
    scene = Scene.after(interactions)
    masks = SceneMasks(ScanPredictor(phantom.volume, model))
    labels = masks.mask(scene, None).array
    for number in range(1, 12):
        assert np.count_nonzero(labels == number) == masks.mask(scene, number).num_voxels

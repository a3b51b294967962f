import numpy as np
import pytest

from clickvol.errors import ConfigError, ModelNotFoundError
from clickvol.evaluation.entries import make_contestants
from clickvol.io.formats import write_volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from reference.evaluation_sets import oblique_grid
from reference.random_models import write_random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return write_random_model(promise3d_recipe("clickvol", "tiny"), folder)


def names(*words):
    return [c.name for c in make_contestants([str(word) for word in words], device="cpu")]


def test_words_name_classical_methods_and_models(model):
    assert names("ball", "ball:12.5", "region-growing", "random-walker", model) == [
        "ball 50 mm",
        "ball 12.5 mm",
        "region growing",
        "random walker",
        "random",
    ]


def test_a_name_can_be_given_and_a_path_may_hold_an_equals_sign(model, tmp_path):
    assert names("ours=" + str(model), "sphere=ball:30") == ["ours", "sphere"]
    odd = tmp_path / "rate=3"
    odd.mkdir()
    for suffix in (".json", ".safetensors"):
        file = model.with_suffix(suffix)
        (odd / file.name).write_bytes(file.read_bytes())
    assert names(odd / model.name) == ["random"]


def test_a_model_is_known_by_the_hash_of_its_weights(model):
    (contestant,) = make_contestants([str(model)], device="cpu")
    assert contestant.takes_clicks
    assert len(contestant.fingerprint) == 64


def test_an_automatic_model_is_scored_twice(tmp_path):
    path = write_random_model(sam3d_adapter_recipe("automatic", "tiny"), tmp_path)
    as_it_is, clicked = make_contestants([str(path)], device="cpu")
    assert (as_it_is.name, as_it_is.takes_clicks) == ("random", False)
    assert (clicked.name, clicked.takes_clicks) == ("random + click", True)
    assert as_it_is.fingerprint == clicked.fingerprint


def test_masks_of_another_program_are_scored_twice(tmp_path):
    grid = oblique_grid()
    write_volume(np.eye(24, dtype=np.uint8)[None].repeat(10, 0), grid, tmp_path / "a.nii.gz")
    assert names(f"predictions:{tmp_path}") == [tmp_path.name, f"{tmp_path.name} + click"]
    assert names(f"nnU-Net=predictions:{tmp_path}") == ["nnU-Net", "nnU-Net + click"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one"),
        (["ball", "ball:50"], "two contestants are called 'ball 50 mm'"),
        (["ball:wide"], "give ball:MM"),
        (["ball:-3"], "radius above 0"),
        (["predictions:/nowhere"], "holds no masks"),
    ],
)
def test_words_that_name_nothing_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        make_contestants(words)


def test_an_unknown_model_is_refused():
    with pytest.raises(ModelNotFoundError, match="there is no model 'nobody'"):
        make_contestants(["nobody"])

import json

import pytest
import torch

from clickvol.errors import DamagedWeightsError, DeviceError, ModelNotFoundError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.load import load_model, network_config
from reference.compare import deviation, noise


def edit_network(card, change):
    """Change the network's configuration inside a card file."""
    content = json.loads(card.read_text())
    change(content["network"])
    card.write_text(json.dumps(content))


def test_a_loaded_network_computes_what_the_saved_one_did(save_model, tiny_state):
    model = load_model(save_model(), device="cpu")
    saved = LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network)
    saved.load_state_dict(tiny_state)
    patch = noise(1, 1, 16, 24, 32)
    prompts = PointPrompts(torch.tensor([[[3.0, 4.0, 5.0]]]), torch.tensor([[1]]))
    assert deviation(model.network(patch, prompts), saved(patch, prompts)) < 1e-6
    assert model.device == torch.device("cpu")
    assert not model.network.training
    assert not any(p.requires_grad for p in model.network.parameters())
    assert model.card.id == "m"


def test_the_configuration_of_a_card_is_that_of_the_network(save_model):
    model = load_model(save_model(), device="cpu")
    assert network_config("promise3d", model.card.network) == promise3d_recipe("clickvol", "tiny").network
    assert model.network.config == promise3d_recipe("clickvol", "tiny").network


def test_a_wrong_hash_is_damage(save_model):
    with pytest.raises(DamagedWeightsError, match=r"sha256 is .*the card says 000000000000"):
        load_model(save_model(sha256="0" * 64), device="cpu")


def test_missing_weights_are_named(save_model, tmp_path):
    card = save_model()
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"m\.safetensors are missing"):
        load_model(card, device="cpu")


def test_a_missing_key_is_named(save_model, tiny_state):
    del tiny_state["mask_decoder.join.weight"]
    with pytest.raises(DamagedWeightsError, match=r"mask_decoder\.join\.weight is missing"):
        load_model(save_model(tiny_state), device="cpu")


def test_an_unexpected_key_is_named(save_model, tiny_state):
    tiny_state["novelty"] = torch.zeros(1)
    with pytest.raises(DamagedWeightsError, match="novelty is unknown"):
        load_model(save_model(tiny_state), device="cpu")


def test_a_tensor_of_another_shape_is_named(save_model, tiny_state):
    tiny_state["mask_decoder.join.weight"] = torch.zeros(2, 2)
    with pytest.raises(DamagedWeightsError, match=r"mask_decoder\.join\.weight") as caught:
        load_model(save_model(tiny_state), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network["encoder"].update(num_heads=7),
        lambda network: network["encoder"].update(width="wide"),
        lambda network: network["prompt"].update(positions="elsewhere"),
        lambda network: network.update(mask_prompt=False),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(save_model, change):
    card = save_model()
    edit_network(card, change)
    with pytest.raises(DamagedWeightsError, match="describes no network of this version"):
        load_model(card, device="cpu")


@pytest.mark.parametrize("part", [None, "encoder", "prompt", "decoder"])
def test_an_option_that_this_version_does_not_know_is_refused(save_model, part):
    card = save_model()
    edit_network(card, lambda network: (network if part is None else network[part]).update(new=1))
    with pytest.raises(DamagedWeightsError, match="describes no network of this version"):
        load_model(card, device="cpu")


@pytest.mark.parametrize("folder", ["..", "/etc", "sub"])
def test_a_card_cannot_lead_to_a_file_elsewhere(save_model, tmp_path, folder):
    (tmp_path / "inner").mkdir()
    card = save_model(weights_file=f"{folder}/m.safetensors")
    moved = card.rename(tmp_path / "inner" / "m.json")
    # m.safetensors lies one folder above the card now.
    with pytest.raises(ModelNotFoundError, match=r"inner/m\.safetensors are missing"):
        load_model(moved, device="cpu")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/.."])
def test_a_weights_file_without_a_name_is_refused(save_model, name):
    with pytest.raises((DamagedWeightsError, ModelNotFoundError)):
        load_model(save_model(weights_file=name), device="cpu")


def test_an_unknown_device_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(DeviceError):
        load_model(tmp_path / "nowhere", device="gpu")


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError):
        load_model(tmp_path / "nowhere", device="cpu")

"""Official files to cards and safetensors: what is used, what is dropped, and every mistake in one line."""

import json
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clickvol import load_model
from clickvol.errors import ClickvolError, ConfigError, DamagedWeightsError, OutputError
from clickvol.weights.official.importing import DATASETS, import_checkpoint
from reference import seeded_official as so


@pytest.fixture
def save(tmp_path):
    def write(content, name="best.pth.tar"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def promise():
    return so.make_checkpoint(so.TINY)


@pytest.fixture
def sam3d():
    return so.make_checkpoint(so.TINY_SAM3D)


def refused(path, folder, kind=DamagedWeightsError, **words):
    """Return the line that an import ends with; nothing may be left behind."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(kind) as caught:
        import_checkpoint(path, folder, **words)
    message = str(caught.value)
    assert "\n" not in message
    assert sorted(folder.parent.iterdir()) == before
    return message


def test_the_card_of_promise3d(promise, save, tmp_path):
    path = save(promise | {"encoder_opt": {"state": {}}, "decoder_opt": {}, "feature_opt": {}})
    imported = import_checkpoint(path, tmp_path / "a" / "b", dataset="colon")
    assert imported.card_path == tmp_path / "a" / "b" / "promise3d-official-colon.json"
    card = imported.card
    assert card.method == "promise3d"
    assert card.fields_of_view.model_dump() == {
        "first_voxel_mm": 1.0,
        "finest_voxel_mm": 1.0,
        "coarsest_voxel_mm": 1.0,
        "click_off_middle": 0.0,
    }
    assert card.intensity == DATASETS["colon"][1]
    assert card.intensity.clip == (-57, 175)
    assert card.licence == "weights of the authors; they give no licence; ask them before use"
    assert card.notes[0].startswith("imported from best.pth.tar, sha256 ")
    assert card.notes[1] == "the file says: epoch 1, best_val_loss 0.5"
    assert imported.dropped[-1] == ("the states of the optimisers (encoder_opt, feature_opt, decoder_opt)")
    assert f"left out: {imported.dropped[-1]}" in card.notes
    network = load_model(imported.card_path, device="cpu").network
    assert card.num_parameters == sum(p.numel() for p in network.parameters())
    assert network.config.patch_shape_dhw == (32, 32, 32)
    assert json.loads(imported.card_path.read_text())["network"]["encoder"]["taps"] == [0, 1, 2, 3]


def test_every_value_arrives_with_turned_kernels(promise, save, tmp_path):
    card = import_checkpoint(save(promise), tmp_path / "m").card_path
    result = load_file(card.with_suffix(".safetensors"))
    encoder = promise["encoder_dict"]
    name = "blocks.2.adapter_back.conv"
    assert torch.equal(result["image_encoder.pos_embed"], encoder["pos_embed"])
    assert torch.equal(
        result["image_encoder.blocks.2.adapter_back.mix.weight"],
        encoder[f"{name}.weight"].permute(0, 1, 4, 2, 3),
    )
    last = promise["feature_dict"][3]["transformer.layers.1.global_query"]
    assert torch.equal(result["prompt_encoder.layers.1.global_query"], last)
    up = promise["decoder_dict"]["mlahead.up4.weight"]
    assert torch.equal(result["mask_decoder.level_ups.2.weight"], up.permute(0, 1, 4, 2, 3))
    assert {tensor.dtype for tensor in result.values()} == {torch.float32}


def test_without_a_data_set_the_card_says_what_is_missing(sam3d, save, tmp_path):
    card = import_checkpoint(save(sam3d), tmp_path / "m", method="sam3d_adapter").card
    assert (card.id, card.method) == ("sam3d-adapter-official", "sam3d_adapter")
    assert card.intensity is None
    assert "import it again with --dataset" in card.notes[-1]


@pytest.mark.parametrize("prompts", ["absent", []])
def test_the_automatic_variant(prompts, save, tmp_path):
    content = so.make_checkpoint(replace(so.TINY_SAM3D, stride=8), prompted=False)
    if prompts != "absent":
        content["feature_dict"] = prompts
    imported = import_checkpoint(save(content), tmp_path / "m", dataset="kits")
    assert imported.card.id == "sam3d-adapter-official-automatic-kits"
    assert imported.card.fields_of_view.first_voxel_mm == 1.0
    config = load_model(imported.card_path, device="cpu").network.config
    assert config.prompt is None
    assert config.patch_shape_dhw == (64, 64, 64)
    assert imported.dropped == ("the shift masks, which follow from the sizes",)


def test_promise3d_always_needs_its_prompt_encoders(promise, save, tmp_path):
    del promise["feature_dict"]
    message = refused(save(promise), tmp_path / "m")
    assert "feature_dict is no list of 4 dictionaries" in message


def test_released_names_of_the_last_stage(promise, save, tmp_path):
    expected = import_checkpoint(save(promise), tmp_path / "new").card
    decoder = promise["decoder_dict"]
    promise["decoder_dict"] = OrderedDict(
        (key.replace("head.", "cls_hao.") if key.startswith("head.") else key, value)
        for key, value in decoder.items()
    )
    result = import_checkpoint(save(promise), tmp_path / "released").card
    assert result.sha256 == expected.sha256


def test_other_precisions_become_float32(promise, save, tmp_path):
    expected = import_checkpoint(save(promise), tmp_path / "a").card
    doubled = {k: v.double() for k, v in promise["encoder_dict"].items()}
    result = import_checkpoint(save(promise | {"encoder_dict": doubled}), tmp_path / "b").card
    assert result.sha256 == expected.sha256


def test_the_id_can_be_chosen(sam3d, save, tmp_path):
    card = import_checkpoint(save(sam3d), tmp_path / "m", model_id="my.own-1").card_path
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "my.own-1.json",
        "my.own-1.safetensors",
    ]
    assert load_model(card, device="cpu").card.id == "my.own-1"


def test_all_faults_are_listed(promise, save, tmp_path):
    promise["encoder_dict"]["blocks.0.novelty"] = torch.zeros(1)
    del promise["encoder_dict"]["blocks.1.norm2.bias"]
    promise["feature_dict"][1]["more"] = torch.zeros(1)
    promise["decoder_dict"]["head.3.weight"] = torch.zeros(3, 8, 3, 3, 3)
    promise["scheduler"] = {}
    message = refused(save(promise), tmp_path / "m")
    assert message.endswith(
        "is not a checkpoint of ProMISe-3D; nothing was written; 5 faults: scheduler is unknown; "
        "encoder_dict.blocks.1.norm2.bias is missing; encoder_dict.blocks.0.novelty is unknown; "
        "feature_dict.1.more is unknown; "
        "decoder_dict.head.3.weight has shape (3, 8, 3, 3, 3), expected (2, 8, 3, 3, 3)"
    )


def test_a_mask_of_another_shape_is_a_fault_too(promise, save, tmp_path):
    promise["encoder_dict"]["blocks.2.attn_mask"] = torch.zeros(1, 64, 64)
    message = refused(save(promise), tmp_path / "m")
    assert "encoder_dict.blocks.2.attn_mask has shape (1, 64, 64), expected (8, 64, 64)" in message


@pytest.mark.parametrize("gone", ["pos_embed", "depth_embed", "blocks.0.attn_mask"])
def test_a_missing_tensor_that_tells_a_size_is_listed(promise, save, tmp_path, gone):
    del promise["encoder_dict"][gone]
    assert f"encoder_dict.{gone} is missing" in refused(save(promise), tmp_path / "m")


def test_what_a_checkpoint_of_another_method_needs_is_said(promise, sam3d, save, tmp_path):
    path = save(promise)
    message = refused(path, tmp_path / "m", method="sam3d_adapter")
    assert message == (
        f"{path} is a checkpoint of the method promise3d, not of sam3d_adapter; give --method promise3d"
    )
    message = refused(save(sam3d), tmp_path / "m", method="promise3d")
    assert message.endswith("give --method sam3d_adapter")


def test_sizes_that_make_no_network(sam3d, save, tmp_path):
    # A head width that does not divide the width.
    sam3d["encoder_dict"]["blocks.0.attn.rel_pos_h"] = torch.zeros(9, 7)
    message = refused(save(sam3d), tmp_path / "m")
    assert "sizes that make no 3DSAM-adapter" in message or "expected (9, " in message


def test_parts_that_are_none(save, tmp_path):
    message = refused(save({"encoder_dict": {}, "decoder_dict": {}}), tmp_path / "m")
    assert "encoder_dict.pos_embed is missing" in message or "make no 3DSAM-adapter" in message
    assert "no checkpoint that can be imported" in refused(
        save({"encoder_dict": [1], "decoder_dict": {}}), tmp_path / "m"
    )
    assert "it has the entries state_dict ..." in refused(save({"state_dict": {}}), tmp_path / "m")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"method": "tags"}, "choose one of promise3d, sam3d_adapter, promise2d, sam2d"),
        ({"dataset": "lung"}, "choose one of colon, pancreas, lits, kits"),
        ({"model_id": "../x"}, "cannot be an id"),
    ],
)
def test_wrong_words(words, expected, sam3d, save, tmp_path):
    assert expected in refused(save(sam3d), tmp_path / "m", ConfigError, **words)


def test_a_folder_that_is_a_file(sam3d, save, tmp_path):
    (tmp_path / "m").write_text("mine")
    assert "cannot make the folder" in refused(save(sam3d), tmp_path / "m", OutputError)
    assert (tmp_path / "m").read_text() == "mine"


def test_a_card_that_cannot_be_written_leaves_no_weights(sam3d, save, tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x.json").mkdir()  # where the card should go
    with pytest.raises(ClickvolError):
        import_checkpoint(save(sam3d), tmp_path / "m", model_id="x")
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["x.json"]


def test_nothing_is_written_that_was_not_read(promise, save, tmp_path):
    """A best_val_loss that is no number does not reach the card."""
    card = import_checkpoint(save(promise | {"best_val_loss": "low"}), tmp_path / "m").card
    assert "the file says: epoch 1" in card.notes
    assert np.isfinite(card.num_parameters)

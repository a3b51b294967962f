"""Models back to official files: same tensors, published names, and options that no such file can hold."""

import gzip
import json
from dataclasses import replace

import pytest
import torch

from clickvol.errors import ClickvolError, ConfigError, ModelNotFoundError, OutputError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.weights.load import network_content
from clickvol.weights.official.exporting import export_checkpoint, official_content
from clickvol.weights.official.file import read_official_file
from clickvol.weights.official.importing import import_checkpoint
from reference import seeded_official as so
from reference.golden import GOLDEN

NETWORKS = {
    "promise3d": (so.TINY, True),
    "sam3d_adapter": (so.TINY_SAM3D, True),
    "automatic": (replace(so.TINY_SAM3D, stride=8), False),
}


@pytest.fixture(params=NETWORKS)
def imported(request, tmp_path):
    """An official checkpoint, and the card made from it."""
    official, prompted = NETWORKS[request.param]
    content = so.make_checkpoint(official, prompted=prompted)
    torch.save(content, tmp_path / "in.pth.tar")
    return content, import_checkpoint(tmp_path / "in.pth.tar", tmp_path / "first").card_path


def test_import_export_import_gives_the_same_model(imported, tmp_path):
    _, card = imported
    exported = export_checkpoint(card, tmp_path / "out.pth.tar")
    again = import_checkpoint(exported.path, tmp_path / "second").card_path
    first, second = (c.with_suffix(".safetensors").read_bytes() for c in (card, again))
    assert first == second


def test_what_is_used_comes_back_to_the_bit_in_the_published_order(imported, tmp_path):
    content, card = imported
    result = read_official_file(export_checkpoint(card, tmp_path / "out.pth.tar").path)
    assert (result["epoch"], result["best_val_loss"]) == (0, 0.0)
    for part in ("encoder_dict", "decoder_dict"):
        assert list(result[part]) == list(content[part])
        # The masks too: what was dropped is made again.
        assert all(torch.equal(result[part][k], v) for k, v in content[part].items())
    assert len(result.get("feature_dict", [])) == len(content.get("feature_dict", []))
    for index, prompt in enumerate(content.get("feature_dict", [])):
        other = result["feature_dict"][index]
        assert [(k, v.shape) for k, v in other.items()] == [(k, v.shape) for k, v in prompt.items()]
    if "feature_dict" in content:
        random = {
            k for k, v in content["feature_dict"][3].items() if not torch.equal(result["feature_dict"][3][k], v)
        }
        assert len(random) == 1 + 2 * 8
        assert all("gaussian" in k or "cross_attn_token_to_image" in k for k in random)


def test_the_same_model_gives_the_same_file_and_leaves_the_generator_alone(imported, tmp_path):
    _, card = imported
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two = (export_checkpoint(card, tmp_path / f"{n}.pth.tar").path for n in "ab")
    assert torch.rand(1) == expected
    result = [read_official_file(path) for path in (one, two)]
    for prompts in zip(*(f.get("feature_dict", []) for f in result), strict=True):
        assert all(torch.equal(value, prompts[1][key]) for key, value in prompts[0].items())


@pytest.mark.parametrize(
    ("method", "recipe"),
    [("promise3d", promise3d_recipe), ("sam3d_adapter", sam3d_adapter_recipe)],
)
def test_at_vit_b_size_names_shapes_and_types_are_the_published_ones(method, recipe):
    content = gzip.decompress((GOLDEN / f"official_keys_{method}.json.gz").read_bytes())
    expected = json.loads(content)
    network = LiftedSegmenter(recipe("released", "vit_b").network)
    result = official_content(network, method)
    assert len(result["feature_dict"]) == 4
    parts = {"encoder_dict": result["encoder_dict"], "decoder_dict": result["decoder_dict"]}
    for part in [*parts.items(), *(("feature_dict", p) for p in result["feature_dict"])]:
        assert [[key, list(t.shape)] for key, t in part[1].items()] == expected[part[0]]
        assert {t.dtype for t in part[1].values()} == {torch.float32}
        assert all(t.is_contiguous() for t in part[1].values())


def test_a_row_of_table_2_is_a_3dsam_adapter():
    network = LiftedSegmenter(_official_sized(promise3d_recipe("table2-baseline", "vit_b").network))
    assert "cls.0.weight" in official_content(network, "sam3d_adapter")["decoder_dict"]
    with pytest.raises(ConfigError, match=r"encoder\.second_adapter"):
        official_content(network, "promise3d")


def test_how_training_started_does_not_matter():
    config = _official_sized(promise3d_recipe("released", "vit_b").network)
    encoder = replace(config.encoder, adapter_initialisation="zero", depth_position_start=0.0)
    network = LiftedSegmenter(replace(config, encoder=encoder))
    assert "head.0.weight" in official_content(network, "promise3d")["decoder_dict"]


def _official_sized(config):
    """Shrink a ViT-B network to one that is made at once."""
    encoder = replace(
        config.encoder,
        width=24,
        depth=4,
        num_heads=2,
        tokens_dhw=(8, 8, 8),
        window=4,
        global_blocks=(2,),
        taps=(0, 1, 2, 3),
    )
    return replace(config, encoder=encoder, patch_shape_dhw=(32, 32, 32))


def test_options_of_ours_are_refused_by_name():
    with torch.device("meta"):
        network = LiftedSegmenter(promise3d_recipe("clickvol", "small").network)
    with pytest.raises(ConfigError) as caught:
        official_content(network, "promise3d")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("the layout of promise3d cannot hold this network; it differs")
    for option in (
        "click_radii_voxel",
        "mask_prompt",
        "prompt.signed",
        "prompt.positions",
        "encoder.second_adapter",
        "encoder.adapter_final_relu",
        "decoder.joined_scales",
    ):
        assert option in message
    assert "adapter_initialisation" not in message


def test_sizes_that_no_published_network_has_are_refused(save_model, tmp_path):
    with pytest.raises(ConfigError, match="cannot hold a network of these sizes: taps"):
        export_checkpoint(save_model(), tmp_path / "out.pth.tar")


def test_windows_that_do_not_move_in_the_grid_are_refused():
    config = _official_sized(promise3d_recipe("released", "vit_b").network)
    for window in (3, 8):
        encoder = replace(config.encoder, window=window)
        network = LiftedSegmenter(replace(config, encoder=encoder))
        with pytest.raises(ConfigError, match=r"in: encoder\.window$"):
            official_content(network, "promise3d")


def test_a_sam_goes_out_as_one_flat_dictionary(save_model, tmp_path):
    config = sam2d_preset("tiny")
    torch.manual_seed(1)
    state = Sam2d(config).state_dict()
    card = save_model(state, method="sam2d", network=network_content("sam2d", config), fields_of_view=None)
    result = read_official_file(export_checkpoint(card, tmp_path / "sam.pth").path)
    assert list(result) == list(state)
    assert all(torch.equal(result[key], value) for key, value in state.items())
    with pytest.raises(ModelNotFoundError, match="cannot do this"):
        export_checkpoint(card, tmp_path / "x.pth", method="promise3d")


def test_a_method_without_a_layout(save_model, tmp_path):
    with pytest.raises(ConfigError, match="tags has no official layout"):
        export_checkpoint(save_model(), tmp_path / "x", method="tags")


@pytest.mark.parametrize("target", ["folder", "missing/x.pth.tar"])
def test_a_place_that_cannot_be_written(imported, tmp_path, target):
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as caught:
        export_checkpoint(imported[1], tmp_path / target)
    assert isinstance(caught.value, ClickvolError)
    assert sorted(tmp_path.rglob("*")) == before

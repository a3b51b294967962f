import re
from dataclasses import replace

import pytest
import torch

from clickvol.errors import DamagedWeightsError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d, LiftedVitConfig
from clickvol.image_encoders.sam_vit2d import SamVit2d, SamVit2dConfig
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.mask_decoders.sam_mask_decoder import SamMaskDecoderConfig
from clickvol.methods.lift import lift_foundation, lift_sam
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam2d import Sam2d, Sam2dConfig, sam2d_preset
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.prompt_encoders.sam_prompts import SamPromptConfig
from reference.compare import deviation, noise, randomise
from reference.plain_tiny_vit import randomise_norms

SAM = SamVit2dConfig(
    image_side=80,
    width=12,
    depth=3,
    num_heads=3,
    mlp_ratio=2.0,
    window=4,
    global_blocks=(1,),
    taps=(),
    feature_width=6,
)
LIFTED = LiftedVitConfig(
    width=12,
    depth=3,
    num_heads=3,
    mlp_ratio=2.0,
    tokens_dhw=(4, 4, 4),
    position_table_side=5,
    window=4,
    local_table_window=4,
    global_table_window=5,
    global_blocks=(1,),
    taps=(0, 2),
    feature_width=6,
)
# What SAM has no counterpart of.
OWN = re.compile(
    r"depth_embed|embedding\.slice_embed\..+|necks\..+|blocks\.\d\.(adapter|adapter_back)\..+"
    r"|blocks\.\d\.attn\.(rel_pos_d|relative_scale)"
)


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return randomise(SamVit2d(SAM)).state_dict()


def make_lifted():
    torch.manual_seed(1)
    return randomise(LiftedVit3d(LIFTED), seed=1)


def test_what_sam_has_is_copied_and_the_rest_left(sam):
    lifted, before = make_lifted(), make_lifted().state_dict()
    lift_sam(sam, lifted)
    after = lifted.state_dict()
    assert after.keys() == before.keys()
    copied = [name for name in after if not OWN.fullmatch(name)]
    assert len(copied) == 3 + 3 * 14
    for name in copied:
        theirs = name.replace("embedding.patch_embed.", "patch_embed.proj.")
        assert torch.equal(after[name], sam[theirs]), name
    for name in after.keys() - set(copied):
        if not name.endswith("rel_pos_d"):
            assert torch.equal(after[name], before[name]), name


def test_relative_positions_along_the_depth_are_the_mean_of_the_other_two(sam):
    lifted = make_lifted()
    lift_sam(sam, lifted)
    for index, block in enumerate(lifted.blocks):
        tables = [sam[f"blocks.{index}.attn.rel_pos_{axis}"] for axis in "hw"]
        assert deviation(block.attn.rel_pos_d, torch.stack(tables).mean(0)) < 1e-6
        assert deviation(tables[0], tables[1]) > 0.1
    assert lifted.blocks[1].attn.rel_pos_d.shape == (9, 4)


def test_parameters_stay_themselves(sam):
    """An optimizer that knows them goes on doing so."""
    lifted = make_lifted()
    before = dict(lifted.named_parameters())
    lift_sam(sam, lifted)
    assert all(before[name] is parameter for name, parameter in lifted.named_parameters())
    assert all(parameter.requires_grad for parameter in lifted.parameters())


def test_the_neck_may_be_missing(sam):
    complete, bare = make_lifted(), make_lifted()
    lift_sam(sam, complete)
    lift_sam({name: t for name, t in sam.items() if not name.startswith("neck.")}, bare)
    patch = noise(1, 1, 16, 16, 16)
    assert torch.equal(complete(patch).deepest, bare(patch).deepest)


def faulty(sam, change):
    state = dict(sam)
    if change == "unknown":
        state["blocks.3.norm1.weight"] = torch.zeros(12)
    elif change == "missing":
        del state["blocks.1.attn.rel_pos_h"], state["pos_embed"]
    elif change == "prefix":
        state = {f"image_encoder.{name}": tensor for name, tensor in state.items()}
    else:
        state["blocks.2.mlp.lin1.bias"] = torch.zeros(13)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown", r": blocks\.3\.norm1\.weight is unknown$"),
        ("missing", r": pos_embed is missing; blocks\.1\.attn\.rel_pos_h is missing$"),
        ("prefix", r"pos_embed is missing; .*image_encoder\.pos_embed is unknown"),
        ("shape", r": blocks\.2\.mlp\.lin1\.bias has shape \(13,\), expected \(24,\)$"),
    ],
)
def test_a_fault_is_named_and_nothing_is_changed(sam, change, message):
    lifted = make_lifted()
    with pytest.raises(DamagedWeightsError, match=message) as caught:
        lift_sam(faulty(sam, change), lifted)
    assert "\n" not in str(caught.value)
    for name, tensor in make_lifted().state_dict().items():
        assert torch.equal(lifted.state_dict()[name], tensor)


def test_another_size_of_sam_is_refused(sam):
    deeper = LiftedVit3d(replace(LIFTED, depth=4))
    with pytest.raises(DamagedWeightsError, match=r"blocks\.3\.norm1\.weight is missing"):
        lift_sam(sam, deeper)
    shallower = LiftedVit3d(replace(LIFTED, depth=2, taps=(0, 1)))
    with pytest.raises(DamagedWeightsError, match=r"blocks\.2\.norm1\.weight is unknown"):
        lift_sam(sam, shallower)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_every_published_size_fits(name):
    encoder = sam2d_preset(name).image_encoder
    config = LiftedVitConfig(
        width=encoder.width,
        depth=encoder.depth,
        num_heads=encoder.num_heads,
        global_blocks=encoder.global_blocks,
        taps=encoder.global_blocks,
    )
    with torch.device("meta"):
        lift_sam(SamVit2d(encoder).state_dict(), LiftedVit3d(config))


def foundation_with(encoder, grid_side):
    """A whole 2D foundation with random weights; only its image encoder is taken."""
    torch.manual_seed(2)
    config = Sam2dConfig(
        image_encoder=encoder,
        prompt=SamPromptConfig(
            width=encoder.feature_width,
            image_side=encoder.image_side,
            grid_side=grid_side,
            mask_channels=4,
        ),
        decoder=SamMaskDecoderConfig(width=encoder.feature_width, num_heads=2, mlp_width=16, iou_width=8),
    )
    return randomise_norms(Sam2d(config))


def segmenter_with(encoder, recipe):
    """The network of a recipe around another encoder."""
    torch.manual_seed(3)
    config = recipe.network
    prompt = replace(config.prompt, width=encoder.feature_width)
    decoder = replace(
        config.decoder,
        feature_width=encoder.feature_width,
        num_levels=len(encoder.taps),
        token_stride=encoder.token_stride,
    )
    network = LiftedSegmenter(replace(config, encoder=encoder, prompt=prompt, decoder=decoder))
    return randomise(network, seed=3)


def unchanged_and_copied(network, foundation, own_prefix):
    """Lift, and return the names of the tensors that stayed, and of those that came from the foundation."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    given = [t for n, t in foundation.image_encoder.state_dict().items()]
    lift_foundation(foundation, network)
    after = network.state_dict()
    stayed = {name for name in after if torch.equal(after[name], before[name])}
    copied = {
        name
        for name in after.keys() - stayed
        if any(g.shape == after[name].shape and torch.equal(g, after[name]) for g in given)
    }
    assert all(name.startswith(own_prefix) for name in after.keys() - stayed)
    return stayed, copied


@pytest.mark.parametrize(
    "recipe",
    [promise3d_recipe("released", "tiny"), sam3d_adapter_recipe("released", "tiny")],
    ids=["ProMISe-3D", "3DSAM-adapter"],
)
def test_a_sam_starts_a_3d_network(recipe):
    sam_config = replace(SAM, feature_width=8)
    foundation = foundation_with(sam_config, grid_side=5)
    second = recipe.network.encoder.second_adapter
    encoder = replace(LIFTED, feature_width=8, second_adapter=second)
    network = segmenter_with(encoder, recipe)
    stayed, copied = unchanged_and_copied(network, foundation, "image_encoder.")
    names = set(network.state_dict())
    own = {n for n in names if OWN.fullmatch(n.removeprefix("image_encoder."))}
    encoder_names = {n for n in names if n.startswith("image_encoder.")}
    along_the_depth = {n for n in own if n.endswith("rel_pos_d")}
    assert copied == encoder_names - own
    assert stayed == names - copied - along_the_depth
    sam_state = foundation.image_encoder.state_dict()
    for index in range(3):
        attention = f"blocks.{index}.attn"
        mean = (sam_state[f"{attention}.rel_pos_h"] + sam_state[f"{attention}.rel_pos_w"]) / 2
        result = network.state_dict()[f"image_encoder.{attention}.rel_pos_d"]
        assert deviation(result, mean) < 1e-6


TINY_VIT = TinyVitConfig(
    image_side=32,
    widths=(4, 6, 8, 12),
    depths=(1, 2, 1, 1),
    num_heads=(1, 2, 2, 3),
    windows=(3, 3, 4, 3),
    feature_width=8,
)


def test_a_litemedsam_starts_a_3d_network():
    foundation = foundation_with(TINY_VIT, grid_side=8)
    encoder = LiftedTinyVitConfig(
        slice_encoder=TINY_VIT, slice_steps=(1, 2, 2, 1), feature_width=8, token_stride=4
    )
    network = segmenter_with(encoder, promise3d_recipe("clickvol", "tiny"))
    slices = "image_encoder.slice_encoder."
    stayed, _ = unchanged_and_copied(network, foundation, slices)
    given = foundation.image_encoder.state_dict()
    filled = {n: t for n, t in network.state_dict().items() if n.startswith(slices)}
    # The statistics of the norms too; SAM's 2D neck is left out.
    assert {n.removeprefix(slices) for n in filled} == {n for n in given if not n.startswith("neck.")}
    for name, tensor in filled.items():
        assert torch.equal(tensor, given[name.removeprefix(slices)]), name
    assert stayed >= set(network.state_dict()) - set(filled)
    assert any(name.endswith("running_mean") for name in filled)


def test_a_foundation_of_the_other_kind_is_refused():
    sam = foundation_with(replace(SAM, feature_width=8), grid_side=5)
    lifted_tiny_vit = segmenter_with(
        LiftedTinyVitConfig(slice_encoder=TINY_VIT, feature_width=8),
        promise3d_recipe("clickvol", "tiny"),
    )
    with pytest.raises(DamagedWeightsError, match="tensors of the 2D encoder are missing"):
        lift_foundation(sam, lifted_tiny_vit)
    litemedsam = foundation_with(TINY_VIT, grid_side=8)
    lifted_sam = segmenter_with(replace(LIFTED, feature_width=8), promise3d_recipe("released", "tiny"))
    with pytest.raises(DamagedWeightsError, match="these weights are not a SAM image encoder"):
        lift_foundation(litemedsam, lifted_sam)

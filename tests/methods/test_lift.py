import re
from dataclasses import replace

import pytest
import torch

from clickvol.errors import DamagedWeightsError
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d, LiftedVitConfig
from clickvol.image_encoders.sam_vit2d import SamVit2d, SamVit2dConfig
from clickvol.methods.lift import lift_sam
from clickvol.methods.sam2d import sam2d_preset
from reference.compare import deviation, noise, randomise

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

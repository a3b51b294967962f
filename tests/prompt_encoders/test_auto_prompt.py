import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clickvol.errors import ConfigError
from clickvol.prompt_encoders.auto_prompt import AutoPrompter, AutoPrompterConfig, slot_labels
from clickvol.prompt_encoders.auto_prompt_cross import Doubling, sine_positions
from clickvol.prompt_encoders.auto_prompt_resnet import BasicBlock
from reference.compare import deviation, noise, randomise

TINY = AutoPrompterConfig(
    num_points=5,
    image_side=96,
    taps=(1, 2, 3),
    tap_widths=(6, 8, 12),
    tap_sides=(16, 8, 8),
    mixed_width=10,
    stage_widths=(4, 6),
    stage_depths=(1, 2),
    query_width=8,
    num_heads=2,
)
CONFIGS = {form: replace(TINY, form=form) for form in ("resnet", "cross")}


def make_taps(batch=2, seed=0):
    """Four taps of which the first is not to be read."""
    sizes = zip((5, *TINY.tap_widths), (32, *TINY.tap_sides), strict=True)
    return tuple(noise(batch, w, s, s, seed=seed + i) for i, (w, s) in enumerate(sizes))


def make_prompter(form):
    torch.manual_seed(1)
    return randomise(AutoPrompter(CONFIGS[form]))


def count(module):
    return sum(p.numel() for p in module.parameters())


def conv3_norm(inputs, outputs):
    return 9 * inputs * outputs + 2 * outputs


def test_the_resnet_form_has_the_published_number_of_parameters():
    with torch.device("meta"):
        prompter = AutoPrompter(AutoPrompterConfig())
    mixing = 9 * 256 * (2304 + 256 + 256) + 3 * 256
    trunk = conv3_norm(256, 64)
    inputs = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        trunk += conv3_norm(inputs, width) + (2 * depth - 1) * conv3_norm(width, width)
        trunk += inputs * width + 2 * width if inputs != width else 0
        inputs = width
    last_shortcut = 512 * 512 + 2 * 512
    head = (512 + 1) * 2 * 16
    assert count(prompter) == mixing + trunk + last_shortcut + head == 28_191_136
    # With the head that the released code computes and never uses: 28.72 M.
    assert count(prompter) + (512 + 1) * 1024 == 28_716_448


def test_the_cross_form_has_the_published_number_of_parameters():
    with torch.device("meta"):
        prompter = AutoPrompter(AutoPrompterConfig(form="cross"))
    width = 768
    doubling = (4 * width**2 + width) + (9 * width**2 + width) + 2 * width
    attention = 4 * (width**2 + width)
    layer = attention + 8 * width**2 + 5 * width + 2 * 2 * width
    learned = 2 * 16 * width + 3 * width
    described = 3 * doubling + 3 * layer + learned + 2 * width + 2
    # With the second norm of each layer that the released code never uses: 44.31 M.
    assert count(prompter) == described == 44_304_386
    assert count(prompter) + 3 * 2 * width == 44_308_994


@pytest.mark.parametrize("form", CONFIGS)
def test_points_lie_in_the_image_and_differ_between_images(form):
    prompter = make_prompter(form).eval()
    # Large maps drive the sigmoid to its ends.
    for factor in (1.0, 1e4):
        prompts = prompter(tuple(factor * tap for tap in make_taps()))
        points = prompts.points_xy_pixel
        assert points.shape == (2, 5, 2)
        assert points.min() >= 0
        assert points.max() <= 96
        assert deviation(points[0], points[1]) > 0.1
    assert prompts.labels.tolist() == [[1, 1, 0, 0, 0]] * 2
    assert prompts.boxes_xyxy_pixel is None
    assert prompts.masks is None


@pytest.mark.parametrize("form", CONFIGS)
def test_points_are_the_side_times_a_sigmoid(form):
    prompter = make_prompter(form).eval()
    taps = make_taps()
    place = prompter.regressor(taps[1:])
    torch.testing.assert_close(prompter(taps).points_xy_pixel, 96 / (1 + torch.exp(-place)))


@pytest.mark.parametrize(
    ("num_points", "expected"),
    [(1, [1]), (2, [1, 0]), (3, [1, 0, 0]), (5, [1, 1, 0, 0, 0]), (16, [1] * 8 + [0] * 8)],
)
def test_the_first_half_of_the_slots_is_positive(num_points, expected):
    assert slot_labels(num_points).tolist() == expected


@pytest.mark.parametrize("form", CONFIGS)
def test_each_image_of_a_batch_is_as_if_alone(form):
    prompter = make_prompter(form).eval()
    taps = make_taps()
    together = prompter(taps).points_xy_pixel
    for i in range(2):
        alone = prompter(tuple(tap[i : i + 1] for tap in taps)).points_xy_pixel
        assert deviation(together[i : i + 1], alone) < 1e-4


@pytest.mark.parametrize("form", CONFIGS)
def test_the_chosen_taps_matter_and_no_other(form):
    prompter = make_prompter(form).eval()
    taps = make_taps()
    before = prompter(taps).points_xy_pixel
    for i in range(4):
        other = tuple(tap.flip(-1) if i == k else tap for k, tap in enumerate(taps))
        moved = deviation(prompter(other).points_xy_pixel, before)
        assert (moved == 0) if i == 0 else (moved > 1e-3)


@pytest.mark.parametrize("form", CONFIGS)
def test_a_gradient_reaches_every_parameter(form):
    prompter = make_prompter(form)
    prompter(make_taps(3)).points_xy_pixel.square().sum().backward()
    silent = {name for name, p in prompter.regressor.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == set()


def test_the_resnet_joins_maps_on_the_grid_of_the_deepest():
    prompter = make_prompter("resnet").eval()
    shallow, middle, deepest = make_taps()[1:]
    pooled = shallow.reshape(2, 6, 8, 2, 8, 2).mean((3, 5))
    result = prompter.regressor((shallow, middle, deepest))
    assert deviation(result, prompter.regressor((pooled, middle, deepest))) < 1e-5


def test_the_resnet_has_the_published_grids():
    torch.manual_seed(0)
    config = replace(
        TINY,
        tap_widths=(2, 2, 2),
        tap_sides=(64, 64, 64),
        mixed_width=4,
        stage_widths=(2, 3, 4, 5),
        stage_depths=(3, 4, 6, 3),
    )
    regressor = AutoPrompter(config).eval().regressor
    grids = []
    for block in regressor.blocks:
        block.register_forward_hook(lambda m, i, out: grids.append(tuple(out.shape[1:])))
    regressor(tuple(noise(1, 2, 64, 64, seed=i) for i in range(3)))
    stages = [(2, 32, 32)] * 3 + [(3, 16, 16)] * 4 + [(4, 8, 8)] * 6 + [(5, 4, 4)] * 3
    assert grids == stages
    projected = [i for i, b in enumerate(regressor.blocks) if not isinstance(b.shortcut, nn.Identity)]
    assert projected == [3, 7, 13, 15]


@pytest.mark.parametrize(("stride", "projects"), [(1, False), (1, True), (2, True)])
def test_a_block_is_two_convolutions_beside_a_shortcut(stride, projects):
    torch.manual_seed(0)
    block = randomise(BasicBlock(3, 3, stride=stride, projects=projects)).eval()
    x = noise(2, 3, 6, 6)
    conv1, norm1, _, conv2, norm2 = block.residual
    hidden = torch.relu(norm1(F.conv2d(x, conv1.weight, stride=stride, padding=1)))
    expected = norm2(F.conv2d(hidden, conv2.weight, padding=1))
    shortcut = x
    if projects:
        conv, norm = block.shortcut
        shortcut = norm(F.conv2d(x, conv.weight, stride=stride))
    torch.testing.assert_close(block(x), torch.relu(expected + shortcut))


def test_queries_do_not_see_each_other():
    prompter = make_prompter("cross").eval()
    maps = make_taps()[1:]
    before = prompter.regressor(maps)
    with torch.no_grad():
        prompter.regressor.query[2] += 1
    change = (prompter.regressor(maps) - before).abs().amax((0, 2))
    assert change[2] > 1e-3
    assert change[[0, 1, 3, 4]].max() == 0


def test_queries_see_where_a_thing_lies():
    prompter = make_prompter("cross").eval()
    deepest = torch.zeros(1, 12, 8, 8)
    deepest[:, :, 1, 2] = 3
    others = [torch.zeros(1, w, s, s) for w, s in ((6, 16), (8, 8))]
    moved = prompter.regressor((*others, deepest)) - prompter.regressor((*others, deepest.roll(4, -1)))
    assert moved.abs().max() > 1e-4


def test_maps_are_enlarged_to_the_published_sides():
    with torch.device("meta"):
        regressor = AutoPrompter(AutoPrompterConfig(form="cross")).regressor
    sides = [3 * [64], 3 * [64], 3 * [64]]
    result = []
    for prepare, side in zip(regressor.prepare, sides, strict=True):
        number = sum(isinstance(part, Doubling) for part in prepare)
        result.append(side[0])
        for _ in range(number):
            result[-1] = 2 * result[-1] - 2
    assert result == [250, 126, 64]
    torch.manual_seed(0)
    assert Doubling(4)(noise(1, 4, 5, 7)).shape == (1, 4, 8, 12)


@pytest.mark.parametrize(
    ("sides", "doublings"),
    [((64, 64, 64), (2, 1, 0)), ((128, 64, 64), (1, 1, 0)), ((256, 64), (0, 0)), ((8,), (0,))],
)
def test_a_map_that_is_finer_already_is_enlarged_less(sides, doublings):
    number = len(sides)
    config = AutoPrompterConfig(taps=tuple(range(number)), tap_widths=(8,) * number, tap_sides=sides)
    assert config.num_doublings == doublings


def test_sine_positions_by_hand():
    codes = sine_positions((2, 3), 8, like=torch.zeros(1))
    assert codes.shape == (6, 8)
    h, w = 2, 1  # second row, first column, from 1

    def code(angle):
        return [math.sin(angle), math.cos(angle), math.sin(angle / 2), math.cos(angle / 2)]

    torch.testing.assert_close(codes[3], torch.tensor([*code(h), *code(w)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_points": 0}, "num_points is 0, but at least 1 is needed"),
        ({"taps": (1, 2)}, "must have one value per tap"),
        ({"taps": (), "tap_widths": (), "tap_sides": ()}, "one tap at least"),
        ({"tap_sides": (8, 8, 16)}, "the last must be the smallest"),
        ({"stage_depths": (1,)}, "must have one value per stage"),
        ({"query_width": 10}, "query_width is 10, but must be a multiple of 4"),
        ({"num_heads": 3}, "and of num_heads 3"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)

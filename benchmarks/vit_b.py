"""Time and memory of the networks of ViT-B size on one patch, beside what the matrix work alone would take.

    python benchmarks/vit_b.py [--method promise3d] [--precision both] [--threads 2] [--train]

Prints a Markdown table; every line is measured in a process of its own, with random weights and a random
patch. Runs on a GPU where there is one. "GFLOP" are counted by torch (2 per multiply-add) on the very
operations that are done; "floor" is the time of that many at the speeds of a linear layer and of a
convolution of the network's own sizes, measured in the same process: nothing but those is in it.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from clickvol.image_encoders.lifted_vit3d import LiftedVit3d
from clickvol.methods.freezing import freeze_foundation, num_parameters
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import Recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import tags_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.losses import segmentation_loss

METHODS: dict[str, Callable[[], Recipe]] = {
    "promise3d": lambda: promise3d_recipe("released", "vit_b"),
    "sam3d_adapter": lambda: sam3d_adapter_recipe("released", "vit_b"),
    "tags": lambda: tags_recipe("released", "vit_b"),
}

NUMBER_FORMATS = {"bf16": torch.bfloat16, "fp32": torch.float32}

# Published training: 10 clicks inside and 20 anywhere.
NUM_TRAINING_CLICKS = 30

# A GPU works while Python goes on; the first pass also chooses kernels there.
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes, on a GPU until all is done."""
    if ON_GPU:
        torch.cuda.synchronize()
    started_at = time.perf_counter()
    function()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - started_at


def peak_gb() -> float:
    """Return the most memory this process has held: the device's on a GPU, else resident memory."""
    if ON_GPU:
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@contextmanager
def number_format(precision: str) -> Iterator[None]:
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def matrix_rates(precision: str) -> dict[str, float]:
    """Return GFLOP per second of a linear layer and of a convolution: the best of several calls."""
    options: dict[str, Any] = {"device": DEVICE, "dtype": NUMBER_FORMATS[precision]}
    rows, weight = torch.randn(2048, 768, **options), torch.randn(3072, 768, **options)
    maps = torch.randn(1, 256, 32, 32, 32, **options).contiguous(memory_format=torch.channels_last_3d)
    kernel = torch.randn(256, 256, 3, 3, 3, **options)
    with torch.inference_mode():
        linear = min(seconds(lambda: F.linear(rows, weight)) for _ in range(20))
        convolution = min(seconds(lambda: F.conv3d(maps, kernel, padding=1)) for _ in range(4))
    return {
        "linear": 2 * rows.numel() * len(weight) / linear / 1e9,
        "convolution": 2 * maps[0, 0].numel() * kernel.numel() / convolution / 1e9,
    }


class WithoutModules(nullcontext):
    """Stands for the counter's hooks on modules, and sees none."""

    parents = frozenset({"Global"})


def count_gflop(work: Callable[[], object]) -> dict[str, float]:
    """Return the operations of a call on meta tensors, of convolutions and of all other matrix work."""
    counter = FlopCounterMode(display=False)
    # Only the sum is asked for; up to torch 2.11 hooks for each module do not go with recomputed blocks.
    counter.mod_tracker = WithoutModules()
    with counter:
        work()
    counts = counter.get_flop_counts()["Global"]
    of_convolutions = sum(n for op, n in counts.items() if "convolution" in str(op))
    total = sum(counts.values())
    return {"linear": (total - of_convolutions) / 1e9, "convolution": of_convolutions / 1e9}


def floor_seconds(gflop: dict[str, float], rates: dict[str, float]) -> float:
    return sum(gflop[kind] / rates[kind] for kind in gflop)


def build(recipe: Recipe, device: torch.device) -> LiftedSegmenter:
    torch.manual_seed(0)
    with device:
        network = LiftedSegmenter(recipe.network)
    freeze_foundation(network)
    return network


def make_inputs(
    network: LiftedSegmenter, num_clicks: int, device: torch.device
) -> tuple[torch.Tensor, PointPrompts]:
    shape = network.config.patch_shape_dhw
    patch = torch.randn(1, network.config.encoder.num_channels, *shape, device=device)
    points = torch.full((1, num_clicks, 3), shape[0] / 2, device=device)
    labels = torch.ones(1, num_clicks, dtype=torch.int64, device=device)
    return patch, PointPrompts(points, labels)


def measure_clicks(recipe: Recipe, precision: str) -> dict[str, float]:
    """Return the figures of a first click on a patch and of further ones."""
    meta = torch.device("meta")
    dry = build(recipe, meta)
    with torch.no_grad():
        gflop_encode = count_gflop(lambda: dry.encode_image(make_inputs(dry, 1, meta)[0]))
        gflop_all = count_gflop(lambda: dry(*make_inputs(dry, 1, meta)))
    gflop_decode = {kind: gflop_all[kind] - gflop_encode[kind] for kind in gflop_all}

    network = build(recipe, DEVICE).eval().requires_grad_(requires_grad=False)
    patch, clicks = make_inputs(network, 1, DEVICE)
    rates = matrix_rates(precision)
    with torch.inference_mode(), number_format(precision):
        if ON_GPU:
            network(patch, clicks)
        first = seconds(lambda: network(patch, clicks))
        encoded = network.encode_image(patch)
        further = min(seconds(lambda: network.decode(encoded, clicks)) for _ in range(3))
    return {
        "first": first,
        "first_gflop": sum(gflop_all.values()),
        "first_floor": floor_seconds(gflop_all, rates),
        "next": further,
        "next_floor": floor_seconds(gflop_decode, rates),
        "peak_gb": peak_gb(),
        "rate": rates["linear"],
    }


def training_step(
    network: LiftedSegmenter, recipe: Recipe, precision: str, device: torch.device
) -> Callable[[], None]:
    """Return a step: forward, loss of the logits, backward, AdamW over what is trained."""
    if isinstance(network.image_encoder, LiftedVit3d):
        network.image_encoder.checkpoint_blocks = True
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=4e-4, weight_decay=0.0)
    patch, clicks = make_inputs(network, NUM_TRAINING_CLICKS, device)
    label = torch.zeros_like(patch[:, :1])
    label[..., 40:80, 40:80, 40:80] = 1

    def step() -> None:
        with number_format(precision):
            logits = network(patch, clicks)
        segmentation_loss(logits.float(), label, recipe.loss).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def measure_training(recipe: Recipe, precision: str) -> dict[str, float]:
    """Return the figures of training steps; the second of two, the first also makes AdamW's state."""
    meta = torch.device("meta")
    gflop = count_gflop(training_step(build(recipe, meta).train(), recipe, "fp32", meta))
    rates = matrix_rates(precision)
    step = training_step(build(recipe, DEVICE).train(), recipe, precision, DEVICE)
    step()
    return {
        "step": seconds(step),
        "step_gflop": sum(gflop.values()),
        "step_floor": floor_seconds(gflop, rates),
        "peak_gb": peak_gb(),
        "rate": rates["linear"],
    }


MEASUREMENTS = {"clicks": measure_clicks, "training": measure_training}


def in_a_process(method: str, precision: str, measurement: str, threads: int) -> dict[str, float]:
    """Return the figures of one measurement from a fresh process."""
    command = [sys.executable, __file__, "--method", method, "--precision", precision]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, "--only", measurement], check=True, stdout=subprocess.PIPE, env=environment
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def print_tables(methods: list[str], precisions: list[str], threads: int, *, train: bool) -> None:
    machine = torch.cuda.get_device_name() if ON_GPU else platform.processor() or "CPU"
    print(f"{machine}, {threads} threads, torch {torch.__version__}\n")
    head = "| method | parameters (trained), M | numbers | GFLOP/s, linear | "
    print(head + "first click, s (floor) | next click, s (floor) | GFLOP | peak, GB |")
    print("|---|---|---|---|---|---|---|---|")
    sizes = {}
    for method in methods:
        total, trained = num_parameters(build(METHODS[method](), torch.device("meta")))
        sizes[method] = f"{total / 1e6:.1f} ({trained / 1e6:.1f})"
        for precision in precisions:
            m = in_a_process(method, precision, "clicks", threads)
            print(
                f"| {method} | {sizes[method]} | {precision} | {m['rate']:.0f} "
                f"| {m['first']:.2f} ({m['first_floor']:.2f}) | {m['next']:.3f} ({m['next_floor']:.3f}) "
                f"| {m['first_gflop']:.0f} | {m['peak_gb']:.2f} |",
                flush=True,
            )
    if not train:
        return
    print("\n| method | numbers | GFLOP/s, linear | training step, s (floor) | GFLOP | peak, GB |")
    print("|---|---|---|---|---|---|")
    for method in methods:
        for precision in precisions:
            m = in_a_process(method, precision, "training", threads)
            print(
                f"| {method} | {precision} | {m['rate']:.0f} | {m['step']:.1f} ({m['step_floor']:.1f}) "
                f"| {m['step_gflop']:.0f} | {m['peak_gb']:.2f} |",
                flush=True,
            )


def main() -> None:
    """Measure each figure in a process of its own, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=[*METHODS, "all"], default="promise3d")
    parser.add_argument("--precision", choices=[*NUMBER_FORMATS, "both"], default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="also a training step")
    parser.add_argument("--only", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        figures = MEASUREMENTS[options.only](METHODS[options.method](), options.precision)
        print(json.dumps(figures))
        return
    methods = list(METHODS) if options.method == "all" else [options.method]
    both = options.precision == "both"
    precisions = list(NUMBER_FORMATS) if both else [options.precision]
    print_tables(methods, precisions, options.threads, train=options.train)


if __name__ == "__main__":
    main()

"""Time and memory of ProMISe-2D on one image, with random weights.

    python benchmarks/promise2d.py [--foundation vit_b] [--precision both] [--threads 2]

Prints a Markdown table: encoding the image, an answer to it (predicted points, shifted tokens, decoder), a
training step of one image (forward, loss, backward, Adam), and the most memory. One process per line.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from clickvol.methods.promise2d import Promise2d, promise2d_preset
from clickvol.training.tasks.losses2d import bce_dice

FOUNDATIONS = ("vit_b", "litemedsam")
NUMBER_FORMATS = ("bf16", "fp32")


def seconds(function: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    function()
    return time.perf_counter() - started_at


def measure(foundation: str, precision: str) -> dict[str, float]:
    """Return the figures of one foundation."""
    torch.manual_seed(0)
    recipe = promise2d_preset("released", foundation)
    network = Promise2d(recipe.network)
    trained = list(network.trainable_parameters().values())
    optimiser = torch.optim.Adam(trained, lr=1e-5)
    side = recipe.network.sam.image_side
    image = torch.rand(1, 3, side, side)
    figures = {
        "all": sum(p.numel() for p in network.parameters()) / 1e6,
        "trained": sum(p.numel() for p in trained) / 1e6,
    }

    def step() -> None:
        masks = network(image, points="auto")
        truth = (masks.logits.detach() > masks.logits.detach().median()).float()
        bce_dice(masks.logits.float(), truth).backward()
        optimiser.step()
        optimiser.zero_grad()

    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        with torch.inference_mode():
            network.eval()
            features = network.encode_image(image)
            figures["encode"] = seconds(lambda: network.encode_image(image))
            network.decode(features, points="auto")
            figures["answer"] = seconds(lambda: network.decode(features, points="auto"))
        network.train()
        figures["step"] = seconds(step)
    figures["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return figures


def main() -> None:
    """Measure each line in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--foundation", choices=FOUNDATIONS, nargs="+", default=list(FOUNDATIONS))
    parser.add_argument("--precision", choices=NUMBER_FORMATS, nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.foundation[0], options.precision[0])))
        return
    print(
        "| foundation | parameters (trained), M | numbers | image, s | answer, s | training step, s "
        "| peak, GB |"
    )
    print("|---|---|---|---|---|---|---|")
    for foundation in options.foundation:
        for precision in options.precision:
            words = [sys.executable, __file__, "--foundation", foundation, "--precision", precision]
            environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
            done = subprocess.run([*words, "--only"], check=True, stdout=subprocess.PIPE, env=environment)
            m = json.loads(done.stdout)
            print(
                f"| {foundation} | {m['all']:.1f} ({m['trained']:.1f}) | {precision} | {m['encode']:.2f} "
                f"| {m['answer']:.3f} | {m['step']:.2f} | {m['peak_gb']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Weights between a shipped model and those of a run on a GPU (Wortsman et al., 2022, arXiv 2109.01903).

    python benchmarks/mix_weights.py OUT/model-1.safetensors --share 0.8 -o promise3d-lesions.safetensors

The head that predicts Dice is taken from the run alone.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from train_on_gpu import build


def main() -> None:
    """Mix and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="weights that train_on_gpu.py wrote")
    parser.add_argument("--share", type=float, required=True, help="of the run, 0 to 1")
    parser.add_argument(
        "--other", default="promise3d-small", help="shipped model or weights that the rest is of"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    before, after = build(options.other)[0].state_dict(), build(options.run)[0].state_dict()
    mixed = {}
    for name, value in after.items():
        is_new = name.startswith("candidates.judge") or name == "candidates.spread"
        share = 1.0 if is_new else options.share
        mixed[name] = (before[name] * (1 - share) + value * share).to(torch.float16).contiguous()
    save_file(mixed, options.output)


if __name__ == "__main__":
    main()

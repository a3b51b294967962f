"""A model between a shipped one and that of a run (Wortsman et al., 2022, arXiv 2109.01903).

    python benchmarks/mix_weights.py OUT/1/lesions.json --share 0.8 -o promise3d-lesions.safetensors

The head that predicts Dice is taken from the run alone, and so is the card, which is written beside.
"""

import argparse
from pathlib import Path

import torch

from clickvol.files.atomic import write_text
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.training.start import grown_weights
from clickvol.weights.load import load_network
from clickvol.weights.safe_file import write_weights


def main() -> None:
    """Mix and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="model that a run wrote")
    parser.add_argument("--share", type=float, required=True, help="of the run, 0 to 1")
    parser.add_argument("--other", default="promise3d-small", help="model that the rest is of")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    card, network = load_network(options.run, LiftedSegmenter)
    before, after = (
        grown_weights(load_network(options.other, LiftedSegmenter)[1], network),
        network.state_dict(),
    )
    mixed = {}
    for name, value in after.items():
        is_new = name.startswith("candidates.judge") or name == "candidates.spread"
        mixed[name] = torch.lerp(before[name], value, 1.0 if is_new else options.share)
    sha256, size = write_weights(mixed, options.output, dtype=torch.float16)
    facts = {"id": options.output.stem, "sha256": sha256, "bytes": size, "weights_file": options.output.name}
    text = card.model_copy(update=facts).model_dump_json(indent=2)
    write_text(options.output.with_suffix(".json"), text + "\n")


if __name__ == "__main__":
    main()

"""Train ProMISe-2D on the frozen LiteMedSAM and compare it with LiteMedSAM, on axial CT slices of sarcomas.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python benchmarks/promise2d_litemedsam.py \
        --weights lite_medsam.pth [--data ../shared/data] [--steps 1500] [--seed 0]

The encoder is frozen and nothing is augmented, so every slice is encoded once (`--cache` keeps that in a
file). The two variables spare the encoder's large temporaries a trip to the system each; they halve its time.
Slices are spread evenly over those with at least 1 cm2 of tumour. Points given are drawn from the truth by
numpy's default_rng([seed, draw, patient, slice]), the same for every method. Dice is taken per slice on the
slice's own grid; the table has its mean over slices, and mean and deviation of that over the draws.

The scans are cropped around the tumour, which gives it away: the two discs, which see no image, say how much.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.datasets.sources import CaseFiles, list_source
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.io.formats import read_volume
from clickvol.methods.promise2d import (
    Promise2d,
    binary_mask,
    promise2d_preset,
    prompts_from_truth,
)
from clickvol.methods.sam2d import (
    Sam2d,
    SquareFit,
    logits_to_image,
    prepare_image,
    sam2d_preset,
)
from clickvol.metrics.overlap import dice
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.training.tasks.losses2d import bce_dice

VALIDATION_PATIENTS = ("008", "019", "024", "029", "042", "047")
WINDOW_HU = (-160.0, 240.0)
MIN_AREA_MM2 = 100.0


@dataclass(frozen=True)
class Slice:
    """One slice before it is encoded: its place in the data, its input and its truth."""

    patient: int
    index: int
    image: Tensor  # (3, S, S) float32
    truth_on_input: Tensor  # (1, S, S) bool
    truth: Tensor  # (H, W) bool
    fit: SquareFit


@dataclass(frozen=True)
class EncodedSlices:
    """Slices and their features in half precision."""

    slices: list[Slice]
    embedding: Tensor  # (M, E, s, s)
    taps: tuple[Tensor, ...]  # (M, E_i, s, s) each

    def features(self, rows: list[int]) -> SliceFeatures:
        """Return some slices as a batch."""
        taps = tuple(tap[rows].float() for tap in self.taps)
        return SliceFeatures(self.embedding[rows].float(), taps)

    def truth(self, rows: list[int]) -> Tensor:
        """Return the truth of some slices on the input, (B, 1, S, S) float."""
        return torch.stack([self.slices[row].truth_on_input for row in rows]).float()


def spread_slices(record: CaseFiles, number: int) -> list[Slice]:
    """Read some slices of a patient, windowed, as inputs of LiteMedSAM."""
    volume, label = read_volume(record.image), read_volume(record.label)
    matrix = volume.grid.affine_ras_mm[:3, :3]
    pixel_mm2 = np.linalg.norm(matrix[:, 0]) * np.linalg.norm(matrix[:, 1])
    truth = np.asarray(label.array) > 0
    candidates = np.flatnonzero(truth.sum(axis=(1, 2)) * pixel_mm2 >= MIN_AREA_MM2)
    places = np.linspace(0, len(candidates) - 1, min(number, len(candidates)))
    low, high = WINDOW_HU
    found = []
    for index in candidates[np.rint(places).astype(int)]:
        windowed = np.clip((volume.array[index].astype(np.float32) - low) / (high - low), 0, 1)
        image, fit = prepare_image(torch.from_numpy(windowed), sam2d_preset("litemedsam"))
        mask = torch.from_numpy(truth[index])
        on_input, _ = prepare_image(mask.float(), sam2d_preset("litemedsam"))
        patient = int(record.case_id.rsplit("_", maxsplit=1)[-1])
        found.append(Slice(patient, int(index), image, on_input[:1] > 0.5, mask, fit))
    return found


def encode(sam: Sam2d, slices: list[Slice]) -> list[Tensor]:
    """Run the frozen encoder over slices; finer taps are kept on the deepest one's grid.

    The auto-prompting module averages them to that grid anyway. The shallowest tap is not read.
    """
    rows = []
    started_at = time.perf_counter()
    with torch.no_grad():
        for number, one in enumerate(slices, start=1):
            features = sam.encode_image(one.image[None])
            grid = features.taps[-1].shape[-2:]
            taps = [F.adaptive_avg_pool2d(tap, grid) for tap in features.taps[1:]]
            rows.append([part.half() for part in (features.embedding, *taps)])
            if number % 20 == 0:
                seconds = (time.perf_counter() - started_at) / number
                print(f"encoded {number} of {len(slices)}, {seconds:.1f} s each", flush=True)
    return [torch.cat(part) for part in zip(*rows, strict=True)]


def encode_patients(options: argparse.Namespace) -> tuple[EncodedSlices, EncodedSlices]:
    """Return the slices to train on and those to score, features from the cache where there is one."""
    records = list_source("msd", options.data / "Sarcoma_CT").cases
    parts = []
    for is_validation, number in (
        (False, options.slices_per_patient),
        (True, options.validation_slices),
    ):
        chosen = [r for r in records if r.case_id.endswith(VALIDATION_PATIENTS) == is_validation]
        parts.append([s for r in chosen for s in spread_slices(r, number)])
    if options.cache and options.cache.is_file():
        encoded = torch.load(options.cache, weights_only=True)
    else:
        sam = load_sam(options.weights)
        encoded = [encode(sam, slices) for slices in parts]
        if options.cache:
            torch.save(encoded, options.cache)
    found = []
    for slices, (embedding, *taps) in zip(parts, encoded, strict=True):
        if len(embedding) != len(slices):
            raise SystemExit(f"{options.cache} was made for other slices; delete it")
        unread = torch.zeros(len(slices), 0)
        found.append(EncodedSlices(slices, embedding, (unread, *taps)))
    return found[0], found[1]


def load_sam(weights: Path) -> Sam2d:
    """Return LiteMedSAM with its published weights."""
    sam = Sam2d(sam2d_preset("litemedsam")).eval()
    sam.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    return sam


def in_bfloat16(module: nn.Module) -> None:
    """Make a module compute in bfloat16; coordinates of points stay outside, in float32."""
    forward = module.forward

    def faster(*args: object, **kwargs: object) -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(*args, **kwargs)

    module.forward = faster


def make_network(options: argparse.Namespace, mode: str) -> Promise2d:
    """Return ProMISe-2D, repaired preset, on LiteMedSAM."""
    torch.manual_seed(options.seed)
    config = promise2d_preset("clickvol", "litemedsam", mode).network
    network = Promise2d(replace(config, mask_token=options.mask_token))
    network.sam.load_state_dict(torch.load(options.weights, weights_only=True), strict=True)
    if options.precision == "bfloat16":
        in_bfloat16(network.sam.mask_decoder)
        if network.auto_prompter is not None:
            in_bfloat16(network.auto_prompter.regressor)
    return network


def train(data: EncodedSlices, options: argparse.Namespace, mode: str) -> Promise2d:
    """Train APM or PaE on cached features, Adam with a constant learning rate."""
    network = make_network(options, mode).train()
    parameters = network.trainable_parameters().values()
    optimiser = torch.optim.Adam(parameters, lr=options.learning_rate)
    rng = np.random.default_rng(options.seed)
    started_at, losses = time.perf_counter(), []
    for step in range(1, options.steps + 1):
        rows = rng.choice(len(data.slices), options.batch_size, replace=False).tolist()
        truth = data.truth(rows)
        points = "auto" if mode == "promise" else prompts_from_truth(truth, 1, rng)
        optimiser.zero_grad()
        loss = bce_dice(network.decode(data.features(rows), points=points).logits.float(), truth)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % 50 == 0:
            seconds = (time.perf_counter() - started_at) / step
            recent = np.mean(losses[-50:])
            print(f"{mode}: step {step}, loss {recent:.3f}, {seconds:.2f} s each", flush=True)
    return network.eval()


def drawn_points(one: Slice, num_points: int, seed: int, draw: int) -> Prompts2d:
    """Return points from the truth of a slice, the same in every run."""
    rng = np.random.default_rng([seed, draw, one.patient, one.index])
    return prompts_from_truth(one.truth_on_input[None].float(), num_points, rng)


def wrong_click(one: Slice, seed: int, draw: int) -> Prompts2d:
    """Return a click beside the object, given as if it were inside."""
    rng = np.random.default_rng([seed, draw, one.patient, one.index])
    h, w = one.fit.resized_shape_hw
    beside = torch.zeros_like(one.truth_on_input)
    beside[:, :h, :w] = ~one.truth_on_input[:, :h, :w]
    return prompts_from_truth(beside[None].float(), 1, rng)


def true_box(one: Slice) -> Prompts2d:
    """Return the tight box of the truth on the input."""
    rows, columns = torch.nonzero(one.truth_on_input[0], as_tuple=True)
    corners = [columns.min(), rows.min(), columns.max(), rows.max()]
    return Prompts2d(boxes_xyxy_pixel=torch.stack(corners)[None].float())


def disc(side: int, centre_xy: Tensor, radius: float) -> Tensor:
    """Return +-1 on the input: (1, 1, S, S), positive within the radius."""
    axis = torch.arange(side)
    squared = (axis[None] - centre_xy[0]) ** 2 + (axis[:, None] - centre_xy[1]) ** 2
    return torch.where(squared <= radius**2, 1.0, -1.0)[None, None]


def centre_of(one: Slice) -> Tensor:
    """Return the middle of the image on the input, (x, y)."""
    h, w = one.fit.resized_shape_hw
    return torch.tensor([(w - 1) / 2, (h - 1) / 2])


Answer = Callable[[int, int], Tensor]
"""Row of a slice and number of a draw -> (1, 1, h, w) logits over the input."""


def score(data: EncodedSlices, answer: Answer, draws: range) -> np.ndarray:
    """Return Dice, (draws, slices), on the slices' own grids."""
    found = np.zeros((len(draws), len(data.slices)))
    with torch.inference_mode():
        for k, draw in enumerate(draws):
            for row, one in enumerate(data.slices):
                logits = logits_to_image(answer(row, draw).float(), one.fit)
                mask = binary_mask(logits)[0, 0].numpy()
                found[k, row] = dice(mask, one.truth.numpy())
    return found


def best_disc_radius(data: EncodedSlices, centre: Callable[[Slice], Tensor]) -> float:
    """Return the radius in pixels of the input with the best mean Dice on slices to train on."""
    radii = range(10, 130, 5)
    means = [
        score(data, lambda row, _, r=r: disc(256, centre(data.slices[row]), r), range(1)).mean() for r in radii
    ]
    return float(radii[int(np.argmax(means))])


def disc_answers(train_data: EncodedSlices, data: EncodedSlices, seed: int) -> dict[str, Answer]:
    """Return the two baselines that see no image."""

    def click_of(one: Slice, draw: int) -> Tensor:
        return drawn_points(one, 1, seed, draw).points_xy_pixel[0, 0]

    at_click = best_disc_radius(train_data, lambda one: click_of(one, 0))
    at_centre = best_disc_radius(train_data, centre_of)
    return {
        f"disc of {at_click:.0f} pixels around the click": lambda row, draw: disc(
            256, click_of(data.slices[row], draw), at_click
        ),
        f"disc of {at_centre:.0f} pixels around the middle of the image": lambda row, _: disc(
            256, centre_of(data.slices[row]), at_centre
        ),
    }


def sam_answers(data: EncodedSlices, options: argparse.Namespace) -> dict[str, Answer]:
    """Return LiteMedSAM as it is, with click or box, by its single mask and by the first of three."""
    sam = load_sam(options.weights)

    def click(row: int, draw: int, token: int) -> Tensor:
        points = drawn_points(data.slices[row], 1, options.seed, draw)
        return sam.decode(data.features([row]), points).logits[:, token : token + 1]

    def box(row: int, token: int) -> Tensor:
        prompts = true_box(data.slices[row])
        return sam.decode(data.features([row]), prompts).logits[:, token : token + 1]

    return {
        "LiteMedSAM, 1 click, mask 0": lambda row, draw: click(row, draw, 0),
        "LiteMedSAM, 1 click, mask 1": lambda row, draw: click(row, draw, 1),
        "LiteMedSAM, tight true box, mask 0": lambda row, _: box(row, 0),
        "LiteMedSAM, tight true box, mask 1": lambda row, _: box(row, 1),
    }


def promise_answers(network: Promise2d, data: EncodedSlices, seed: int) -> dict[str, Answer]:
    """Return a trained network with the points that its mode can take."""

    def logits(row: int, points: Literal["auto"] | Prompts2d) -> Tensor:
        return network.decode(data.features([row]), points=points).logits

    def drawn(row: int, draw: int, num_points: int) -> Tensor:
        return logits(row, drawn_points(data.slices[row], num_points, seed, draw))

    if network.config.mode == "ips":
        return {
            "IPS, 1 click": lambda row, draw: drawn(row, draw, 1),
            "IPS, 1 wrong click": lambda row, draw: logits(row, wrong_click(data.slices[row], seed, draw)),
        }
    return {
        "ProMISe, auto": lambda row, _: logits(row, "auto"),
        "ProMISe, 1 click": lambda row, draw: drawn(row, draw, 1),
        "ProMISe, 16 points": lambda row, draw: drawn(row, draw, 16),
    }


def print_row(name: str, found: np.ndarray) -> None:
    """Print one method's line of the table."""
    of_draws = found.mean(axis=1)
    spread = f"{of_draws.std(ddof=1):.3f}" if len(of_draws) > 1 else "-"
    median = np.median(found)
    print(f"| {name} | {of_draws.mean():.3f} | {spread} | {median:.3f} |", flush=True)


def main() -> None:
    """Encode, train both modes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="lite_medsam.pth")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="file of encoded slices; made where missing")
    parser.add_argument("--slices-per-patient", type=int, default=8)
    parser.add_argument("--validation-slices", type=int, default=10, help="per patient")
    parser.add_argument("--modes", nargs="*", default=["ips", "promise"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--mask-token", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train_data, data = encode_patients(options)
    print(f"{len(train_data.slices)} slices to train on, {len(data.slices)} to score\n")
    answers = disc_answers(train_data, data, options.seed) | sam_answers(data, options)
    for mode in options.modes:
        answers |= promise_answers(train(train_data, options, mode), data, options.seed)
    print("\n| method and points | Dice | sd over draws | median |")
    print("|---|---|---|---|")
    for name, answer in answers.items():
        fixed = "box" in name or "auto" in name or "middle" in name
        print_row(name, score(data, answer, range(1 if fixed else options.draws)))


if __name__ == "__main__":
    main()

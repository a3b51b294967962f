"""Training samples of 2D networks: slices of labelled scans, and pictures, as the network's square input."""

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.by_case.augment2d import moved, spoiled
from clickvol.datasets.case_index import slice_numbers
from clickvol.datasets.pictures import PictureCase
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import SliceSampling
from clickvol.methods.sam2d import Sam2dConfig, SquareFit, prepare_image
from clickvol.preprocessing.slices2d import Plane, slice_view, unit_pixels, unit_values
from clickvol.prompts.simulate import sample_points

Case2d = LabelledVolume | PictureCase
"""What 2D networks are trained on: a scan, by its slices, or a picture."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceSample:
    """A batch of slices.

    Attributes:
        image: (B, 3, S, S) float32, normalised for the network.
        label: (B, 1, S, S) uint8, the truth over the same square; 0 in its padding.
        points_xy_pixel: (B, N, 2) float32, drawn from the truth, in pixels of the square; N may be 0.
        point_labels: (B, N) int64, 1 inside the object and 0 outside it.
    """

    image: Tensor
    label: Tensor
    points_xy_pixel: Tensor
    point_labels: Tensor

    def to(self, device: torch.device) -> "SliceSample":
        """Return the sample on a device."""
        return SliceSample(
            image=self.image.to(device, non_blocking=True),
            label=self.label.to(device, non_blocking=True),
            points_xy_pixel=self.points_xy_pixel.to(device, non_blocking=True),
            point_labels=self.point_labels.to(device, non_blocking=True),
        )


def object_slices(case: LabelledVolume, plane: Plane) -> NDArray[np.int64]:
    """Return the indices of the slices that show the object, ascending."""
    axis = slice_view(case.volume.grid, plane, 0).normal_axis
    return slice_numbers(case.object_runs_dhw[axis])


def num_images(case: Case2d, plane: Plane) -> int:
    """Return how many images a case has to train on."""
    return 1 if isinstance(case, PictureCase) else len(object_slices(case, plane))


def draw_slice_sample(
    case: Case2d,
    sam: Sam2dConfig,
    sampling: SliceSampling,
    num_points: int,
    rng: np.random.Generator,
) -> SliceSample:
    """Draw a batch of one slice that shows the object, or of the picture, changed as `sampling` says.

    A slice lies and is windowed as `clickvol segment-image --slice` would have it. A change may move the
    object out of the image; then all points lie beside it.

    Args:
        case: the scan or the picture.
        sam: network whose input is made.
        sampling: which slices, which changes.
        num_points: points to draw from the truth, after the changes and over the whole square, as released.
        rng: source of the randomness.
    """
    image, mask = moved(*_drawn_image(case, sampling.plane, rng), sampling, rng)
    image = spoiled(image, sampling, rng)
    prepared, fit = prepare_image(torch.from_numpy(image), sam)
    truth = _on_square(mask, fit)
    points, signs = np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    if num_points:
        points, signs = sample_points(truth[0].numpy(), num_points, rng)
    return SliceSample(
        image=prepared[None],
        label=truth.to(torch.uint8)[None],
        points_xy_pixel=torch.from_numpy(points.astype(np.float32))[None],
        point_labels=torch.from_numpy(signs)[None],
    )


def _drawn_image(
    case: Case2d, plane: Plane, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image in 0..1, (H, W) or for colours (H, W, 3), and its mask (H, W)."""
    if isinstance(case, PictureCase):
        pixels, mask = case.read()
        return unit_pixels(pixels), mask
    index = int(rng.choice(object_slices(case, plane)))
    view = slice_view(case.volume.grid, plane, index)
    image = unit_values(view.cut(case.volume.array), case.volume.modality)
    return image, view.cut(case.label).astype(np.bool_)


def joined_slices(batches: list[SliceSample]) -> SliceSample:
    """Join batches into a larger one."""
    return SliceSample(
        **{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(SliceSample)}
    )


def _on_square(mask: NDArray[np.bool_], fit: SquareFit) -> Tensor:
    """(H, W) -> (1, S, S) bool: where at least half of a pixel of the square is object."""
    values = torch.from_numpy(mask.astype(np.float32))[None, None]
    h, w = fit.resized_shape_hw
    resized = F.interpolate(values, size=(h, w), mode="bilinear", align_corners=False, antialias=True)
    return F.pad(resized[0] > 0.5, (0, fit.side_pixel - w, 0, fit.side_pixel - h))

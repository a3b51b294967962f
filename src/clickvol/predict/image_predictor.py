"""One 2D image and prompts in its own pixels in, one mask on its own pixels out: SAM and ProMISe-2D."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.errors import ConfigError
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.methods.promise2d import METHOD_ID as PROMISE2D
from clickvol.methods.promise2d import Promise2d, binary_mask
from clickvol.methods.sam2d import Sam2d, SquareFit, logits_to_image, prepare_image
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts, check_prompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL
from clickvol.weights.card import ModelCard, read_card
from clickvol.weights.device import choose_device
from clickvol.weights.load import load_network

# The first of SAM's masks is the one for a prompt that is not ambiguous (Segment Anything, section 3).
_SINGLE_MASK = 0


@dataclass(frozen=True, slots=True, eq=False)
class ImageModel:
    """A 2D network with its weights on a device, in evaluation mode, and its card."""

    card: ModelCard
    network: Sam2d | Promise2d
    device: torch.device

    @property
    def sam(self) -> Sam2d:
        """The network itself, or the foundation in it."""
        return self.network.sam if isinstance(self.network, Promise2d) else self.network

    @property
    def predicts_points(self) -> bool:
        """Whether it can do without prompts."""
        return isinstance(self.network, Promise2d) and self.network.auto_prompter is not None

    @property
    def was_trained_with_boxes_only(self) -> bool:
        """Whether points alone mean little to it: it is LiteMedSAM, which has SAM's name for its parts."""
        network = self.network
        return isinstance(network, Sam2d) and isinstance(network.config.image_encoder, TinyVitConfig)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSegmentation:
    """The answer on the pixels of the image.

    Attributes:
        mask: (H, W) bool: where the logit is above 0.
        probability: (H, W) float32 in [0, 1], the sigmoid of the logit.
        iou: the network's own guess of the mask's intersection over union, not clamped.
        prompts: what was answered. Predicted points may lie off an image that is not square.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    iou: float
    prompts: ImagePrompts


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image that a model has seen, a batch of one, and how it lies in the network's input."""

    features: SliceFeatures
    fit: SquareFit


def load_image_model(id_or_path: str, *, device: str = "auto") -> ImageModel:
    """Load a model for 2D images by id or path, on "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ModelNotFoundError: when there is no such model, its weights are missing, or it is one for volumes.
        DamagedWeightsError: when hash, container or keys are not what the card says.
        DeviceError: when the device is not there.
    """
    chosen = choose_device(device)
    network: Sam2d | Promise2d
    if read_card(id_or_path).method == PROMISE2D:
        card, network = load_network(id_or_path, Promise2d)
    else:
        card, network = load_network(id_or_path, Sam2d)
    return ImageModel(card, network.to(chosen), chosen)


def segment_image(
    image: NDArray[np.generic], prompts: ImagePrompts | Literal["auto"], model: ImageModel
) -> ImageSegmentation:
    """Segment an image.

    SAM answers with its mask for prompts that are not ambiguous, ProMISe-2D with the mask that its
    configuration names.

    Args:
        image: (H, W) grey or (H, W, 3) red, green, blue; uint8, or floating point in 0..1.
        prompts: at least one click or a box, in the image; or "auto": the model predicts points.
        model: from `load_image_model`.

    Raises:
        ClickError: when nothing is pointed at, or something outside the image.
        ConfigError: for an image of another form, or "auto" with a model that predicts no points.
    """
    _check(prompts, (image.shape[0], image.shape[1]), model)
    return answer_prompts(encode_image(image, model), prompts, model)


def encode_image(image: NDArray[np.generic], model: ImageModel) -> EncodedImage:
    """Do what prompts have no part in; ConfigError for an image of another form than `segment_image` takes."""
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(model.device)
        prepared, fit = prepare_image(pixels, model.sam.config)
        return EncodedImage(model.network.encode_image(prepared[None]), fit)


def answer_prompts(
    encoded: EncodedImage,
    prompts: ImagePrompts | Literal["auto"],
    model: ImageModel,
    *,
    opening_side_pixel: int = 0,
) -> ImageSegmentation:
    """Answer prompts on an image that the same model has encoded, as `segment_image`.

    `opening_side_pixel` is the side of the opening of the network's own mask (`methods.promise2d.binary_mask`);
    0 for none.
    """
    fit = encoded.fit
    _check(prompts, fit.image_shape_hw, model)
    with torch.inference_mode():
        given = None if prompts == "auto" else _to_network(prompts, fit, model.device)
        logits, iou, predicted = _answer(model.network, encoded.features, given)
        if opening_side_pixel:
            kept = binary_mask(logits, opening_side_pixel=opening_side_pixel)
            logits = torch.where(kept, logits, -logits.abs())
        on_image = logits_to_image(logits, fit)[0, 0].float().cpu()
    used = _to_image(predicted, fit) if prompts == "auto" else prompts
    return ImageSegmentation(
        mask=(on_image > 0).numpy(),
        probability=torch.sigmoid(on_image).numpy(),
        iou=float(iou[0]),
        prompts=used,
    )


def _check(prompts: ImagePrompts | Literal["auto"], shape_hw: tuple[int, int], model: ImageModel) -> None:
    if prompts != "auto":
        check_prompts(prompts, shape_hw)
    elif not model.predicts_points:
        raise ConfigError(
            f"{model.card.id} predicts no points; give clicks or a box, or choose a ProMISe-2D model with "
            "auto-prompting (mode 'apm' or 'promise')"
        )


def _answer(
    network: Sam2d | Promise2d, features: SliceFeatures, given: Prompts2d | None
) -> tuple[torch.Tensor, torch.Tensor, Prompts2d]:
    """Return logits (1, 1, 4 s, 4 s), guess of the overlap (1,), and the prompts answered."""
    if isinstance(network, Promise2d):
        answer = network.decode(features, points="auto" if given is None else given)
        return answer.logits, answer.iou, answer.prompts
    used = given or Prompts2d()
    masks = network.decode(features, used)
    chosen = slice(_SINGLE_MASK, _SINGLE_MASK + 1)
    return masks.logits[:, chosen], masks.iou[:, _SINGLE_MASK], used


def _to_network(prompts: ImagePrompts, fit: SquareFit, device: torch.device) -> Prompts2d:
    """Prompts in pixels of the image -> a batch of one in those of the network's input."""
    points = labels = boxes = None
    if prompts.clicks:
        places = [[(click.column, click.row) for click in prompts.clicks]]
        kinds = [FOREGROUND_LABEL if c.foreground else BACKGROUND_LABEL for c in prompts.clicks]
        points = fit.to_network(torch.tensor(places, dtype=torch.float32, device=device))
        labels = torch.tensor([kinds], device=device)
    if prompts.box_xyxy_pixel is not None:
        box = torch.tensor([prompts.box_xyxy_pixel], dtype=torch.float32, device=device)
        boxes = fit.to_network(box)
    return Prompts2d(points_xy_pixel=points, labels=labels, boxes_xyxy_pixel=boxes)


def _to_image(prompts: Prompts2d, fit: SquareFit) -> ImagePrompts:
    """Points of a batch of one in pixels of the input -> clicks in those of the image."""
    if prompts.points_xy_pixel is None or prompts.labels is None:
        return ImagePrompts()
    places = fit.to_image(prompts.points_xy_pixel[0].float()).cpu().tolist()
    labels = prompts.labels[0].tolist()
    clicks = (
        ImageClick(x, y, foreground=label == FOREGROUND_LABEL)
        for (x, y), label in zip(places, labels, strict=True)
        if label != PADDING_LABEL
    )
    return ImagePrompts(clicks=tuple(clicks))

import numpy as np
import pytest
import torch

from clickvol.errors import ClickError, ConfigError
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.mask_decoders.sam_mask_decoder import SamMasks
from clickvol.methods.promise2d import Promise2d
from clickvol.methods.sam2d import Sam2d, prepare_image, sam2d_preset
from clickvol.predict.image_predictor import ImageModel, load_image_model, segment_image
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts
from reference.compare import randomise
from reference.tiny_models2d import tiny_promise2d_config, write_model2d

CLICK = ImagePrompts((ImageClick(5, 3),))


def image_with_a_block(shape_hw):
    """A dark image with a bright block near its top right: no symmetry maps it to itself."""
    image = np.zeros(shape_hw, np.float32)
    image[shape_hw[0] // 8 : shape_hw[0] // 3, -shape_hw[1] // 4 : -2] = 1.0
    return image


def model_of(network, identifier="m"):
    class Card:
        id = identifier

    return ImageModel(Card(), network, torch.device("cpu"))


class ShowsItsInput(Sam2d):
    """Answers with the image itself, token 0; the other tokens say the opposite."""

    def encode_image(self, image):
        return SliceFeatures(image, ())

    def decode(self, features, prompts):
        self.prompts, image = prompts, features.embedding
        # (B, 3, S, S) normalised -> 0..1 -> a logit at a quarter of the side, as SAM's masks have.
        mean, std = self.config.pixel_mean[0], self.config.pixel_std[0]
        grey = (image[:, :1] * std + mean) / 255 - 0.5
        small = torch.nn.functional.avg_pool2d(grey, 2)
        return SamMasks(logits=torch.cat([small, -small, -small, -small], dim=1), iou=torch.arange(4.0)[None])


@pytest.mark.parametrize("shape_hw", [(64, 64), (48, 96), (96, 40), (33, 57), (200, 130)])
def test_the_answer_lands_on_the_picture(shape_hw):
    image = image_with_a_block(shape_hw)
    result = segment_image(image, CLICK, model_of(ShowsItsInput(sam2d_preset("tiny"))))
    assert result.mask.shape == result.probability.shape == shape_hw
    assert result.mask.dtype == bool
    overlap = 2 * (result.mask & (image > 0.5)).sum() / (result.mask.sum() + (image > 0.5).sum())
    assert overlap > 0.85
    assert np.array_equal(result.mask, result.probability > 0.5)
    assert result.iou == 0.0


def test_prompts_are_told_to_the_network_in_its_own_pixels():
    network = ShowsItsInput(sam2d_preset("tiny"))
    prompts = ImagePrompts((ImageClick(0, 0), ImageClick(127, 31, foreground=False)), (0, 0, 127, 31))
    segment_image(np.zeros((32, 128), np.float32), prompts, model_of(network))
    # 128 columns become 64: the pixel 0 covers half of one, so that its centre is at -0.25.
    expected = [[[-0.25, -0.25], [63.25, 15.25]]]
    assert torch.allclose(network.prompts.points_xy_pixel, torch.tensor(expected))
    assert network.prompts.labels.tolist() == [[1, 0]]
    assert torch.allclose(network.prompts.boxes_xyxy_pixel, torch.tensor([[-0.25, -0.25, 63.25, 15.25]]))


def test_sam_answers_with_its_single_mask_and_promise2d_with_its_own():
    image = image_with_a_block((40, 64))
    sam = randomise(Sam2d(sam2d_preset("tiny")).eval())
    prepared, fit = prepare_image(torch.from_numpy(image), sam.config)
    model = model_of(sam)
    result = segment_image(image, CLICK, model)
    assert model.sam is sam
    assert not model.predicts_points

    promise = Promise2d(tiny_promise2d_config("ips")).eval()
    promise.load_state_dict(
        {f"sam.{n}": v for n, v in sam.state_dict().items()}
        | {n: torch.zeros_like(v) for n, v in promise.state_dict().items() if not n.startswith("sam.")}
    )
    shifted_by_nothing = segment_image(image, CLICK, model_of(promise))
    with torch.no_grad():
        place = fit.to_network(torch.tensor([[[5.0, 3.0]]]))
        masks = sam(prepared[None], Prompts2d(points_xy_pixel=place, labels=torch.tensor([[1]])))
    assert result.iou == pytest.approx(float(masks.iou[0, 0]))
    assert shifted_by_nothing.iou == pytest.approx(float(masks.iou[0, 1]), abs=1e-5)
    assert not np.allclose(result.probability, shifted_by_nothing.probability, atol=1e-3)


def test_predicted_points_come_back_in_pixels_of_the_image():
    torch.manual_seed(1)
    network = Promise2d(tiny_promise2d_config("promise")).eval()
    image = image_with_a_block((200, 100))
    result = segment_image(image, "auto", model_of(network))
    prepared, _ = prepare_image(torch.from_numpy(image), network.config.sam)
    with torch.no_grad():
        prompts = network(prepared[None], points="auto").prompts
    assert [click.foreground for click in result.prompts.clicks] == prompts.labels[0].bool().tolist()
    # The longer side of 200 pixels becomes 64.
    expected = (prompts.points_xy_pixel[0] + 0.5) * 200 / 64 - 0.5
    places = [(click.column, click.row) for click in result.prompts.clicks]
    assert np.allclose(places, expected.numpy(), atol=1e-3)


def test_predicted_points_given_by_hand_have_the_same_answer():
    torch.manual_seed(1)
    model = model_of(Promise2d(tiny_promise2d_config("promise")).eval())
    image = image_with_a_block((70, 70))
    result = segment_image(image, "auto", model)
    again = segment_image(image, result.prompts, model)
    assert len(result.prompts.clicks) == 4
    assert np.allclose(again.probability, result.probability, atol=1e-4)


def test_models_that_predict_no_points_say_so():
    for network in (Sam2d(sam2d_preset("tiny")), Promise2d(tiny_promise2d_config("ips"))):
        with pytest.raises(ConfigError, match="m predicts no points; give clicks or a box"):
            segment_image(np.zeros((8, 8), np.float32), "auto", model_of(network.eval()))


def test_what_is_not_in_the_image_is_refused():
    model = model_of(Sam2d(sam2d_preset("tiny")))
    with pytest.raises(ClickError, match="columns are 0 to 8 and rows 0 to 3"):
        segment_image(np.zeros((4, 9)), ImagePrompts((ImageClick(3, 8),)), model)


@pytest.mark.parametrize("method", ["sam2d", "promise2d"])
def test_saved_and_loaded_it_answers_the_same(tmp_path, method):
    torch.manual_seed(2)
    network = (
        Sam2d(sam2d_preset("tiny")) if method == "sam2d" else Promise2d(tiny_promise2d_config("promise"))
    ).eval()
    card = write_model2d(tmp_path, network, method)
    model = load_image_model(str(card), device="cpu")
    assert type(model.network) is type(network)
    assert model.predicts_points == (method == "promise2d")
    image = image_with_a_block((30, 50))
    before = segment_image(image, CLICK, model_of(network))
    after = segment_image(image, CLICK, model)
    assert np.array_equal(before.probability, after.probability)
    assert np.array_equal(before.mask, after.mask)

"""SAM's prompt encoder: points, a box and an earlier mask of each image to embeddings.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), appendix A, "Prompt encoder". Parameters have the
names of SAM's own files.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.layers.norms import ChannelLayerNorm
from clickvol.layers.position_encoding import PlanarFourierPositions, cell_centres
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL

# The four learned point embeddings: outside, inside, first corner of a box, second corner.
_NUM_POINT_KINDS = 4
_FIRST_CORNER, _SECOND_CORNER = 2, 3


@dataclass(frozen=True, kw_only=True)
class SamPromptConfig:
    """Sizes of the prompt encoder. The defaults are SAM's.

    Attributes:
        image_side: side of the network's square input in pixels.
        grid_side: cells of the image embedding per side; an earlier mask has four pixels per cell and axis.
        mask_channels: channels of the mask's second convolution; a multiple of 4.
    """

    width: int = 256
    image_side: int = 1024
    grid_side: int = 64
    mask_channels: int = 16

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ConfigError(
                f"width {self.width} is odd, but half of the embedding are sines and half cosines"
            )
        if self.mask_channels % 4:
            raise ConfigError(f"mask_channels {self.mask_channels} is not a multiple of 4")


@dataclass(frozen=True, slots=True)
class Prompts2d:
    """Prompts of a batch of images. None where there is none of a kind.

    Pixels are those of the network's square input (`methods.sam2d.SquareFit` converts), centres at
    integers.

    Attributes:
        points_xy_pixel: (B, N, 2) float: x to the right, y down.
        labels: (B, N) integer: 1 inside the object, 0 outside it, -1 no point (padding). With the points.
        boxes_xyxy_pixel: (B, 4) float: x and y of the first and of the last pixel.
        masks: (B, 1, 4 s, 4 s) logits of an earlier mask, s being grid_side.
    """

    points_xy_pixel: Tensor | None = None
    labels: Tensor | None = None
    boxes_xyxy_pixel: Tensor | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points_xy_pixel is None) != (self.labels is None):
            raise ConfigError("points need labels and labels need points, but only one of the two is given")


@dataclass(frozen=True, slots=True)
class SamPromptEmbedding:
    """What the mask decoder reads.

    Attributes:
        sparse: (B, T, E): points, then a padding point where no box is given, then the box's two corners.
            T is 0 without points and box.
        dense: (B, E, s, s), of the mask or of its absence; to be added to the image embedding.
    """

    sparse: Tensor
    dense: Tensor


class SamPrompts(nn.Module):
    """Prompts -> SamPromptEmbedding. Gradients reach the coordinates of points and boxes."""

    def __init__(self, config: SamPromptConfig) -> None:
        super().__init__()
        self.config = config
        width, deep = config.width, config.mask_channels
        shallow = deep // 4
        self.pe_layer = PlanarFourierPositions(width)
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, width) for _ in range(_NUM_POINT_KINDS)])
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, shallow, kernel_size=2, stride=2),
            ChannelLayerNorm(shallow),
            nn.GELU(),
            nn.Conv2d(shallow, deep, kernel_size=2, stride=2),
            ChannelLayerNorm(deep),
            nn.GELU(),
            nn.Conv2d(deep, width, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, prompts: Prompts2d, batch: int) -> SamPromptEmbedding:
        """Embed the prompts of `batch` images."""
        sparse: list[Tensor] = []
        if prompts.points_xy_pixel is not None and prompts.labels is not None:
            needs_padding = prompts.boxes_xyxy_pixel is None
            sparse.append(self._points(prompts.points_xy_pixel, prompts.labels, pad=needs_padding))
        if prompts.boxes_xyxy_pixel is not None:
            sparse.append(self._boxes(prompts.boxes_xyxy_pixel))
        if not sparse:
            sparse.append(self.no_mask_embed.weight.new_zeros(batch, 0, self.config.width))
        return SamPromptEmbedding(torch.cat(sparse, dim=1), self._dense(prompts.masks, batch))

    def grid_positions(self) -> Tensor:
        """Return the codes of the places of the image embedding's cells: (1, E, s, s)."""
        side = self.config.grid_side
        centres_yx = cell_centres((1, side, side), like=self.no_mask_embed.weight)[..., 1:]
        return self._code(centres_yx.flip(-1)).permute(0, 3, 1, 2)

    def _code(self, place_xy: Tensor) -> Tensor:
        """(..., 2) in [0, 1] -> (..., E)."""
        return torch.as_tensor(self.pe_layer(place_xy)).to(self.no_mask_embed.weight.dtype)

    def _place(self, xy_pixel: Tensor) -> Tensor:
        """(..., 2) pixels -> [0, 1]. Half a pixel leads from a pixel's number to its centre."""
        return (xy_pixel.to(torch.float32) + 0.5) / self.config.image_side

    def _kinds(self, *indices: int) -> Tensor:
        """Return learned point embeddings: (indices, E)."""
        return torch.cat([torch.as_tensor(self.point_embeddings[i].weight) for i in indices])

    def _points(self, xy_pixel: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        """(B, N, 2) and (B, N) -> (B, N or N + 1, E)."""
        code = self._code(self._place(xy_pixel))
        if pad:
            code = torch.cat([code, code.new_zeros(code.shape[0], 1, code.shape[2])], dim=1)
            padding = labels.new_full((labels.shape[0], 1), PADDING_LABEL)
            labels = torch.cat([labels, padding], dim=1)
        # A place that is not one counts for nothing, whatever its coordinates are.
        code = code.masked_fill((labels == PADDING_LABEL)[..., None], 0.0)
        kinds = self._kinds(BACKGROUND_LABEL, FOREGROUND_LABEL)
        kinds = torch.cat([kinds, self.not_a_point_embed.weight])
        # Label -1 picks the last row.
        return code + kinds[labels]

    def _boxes(self, xyxy_pixel: Tensor) -> Tensor:
        """(B, 4) -> (B, 2, E)."""
        corners = self._place(xyxy_pixel.reshape(-1, 2, 2))
        return self._code(corners) + self._kinds(_FIRST_CORNER, _SECOND_CORNER)

    def _dense(self, masks: Tensor | None, batch: int) -> Tensor:
        """(B, 1, 4 s, 4 s) or None -> (B, E, s, s)."""
        if masks is not None:
            return torch.as_tensor(self.mask_downscaling(masks))
        side = self.config.grid_side
        return self.no_mask_embed.weight.view(1, -1, 1, 1).expand(batch, -1, side, side)

"""How training samples are drawn, as configuration."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clickvol.preprocessing.slices2d import Plane


class SamplingSection(BaseModel):
    """A simulated user's looks at an object. All choices of ours: no paper trains on several scales.

    Attributes:
        kind: tells this way from the others.
        small_object_exponent: a case is drawn with a probability that goes as its longest side to the
            minus this power; 0 draws all alike. Small tumours are rare among the large ones.
        first_voxel_mm: voxel side of the first look at a click.
        first_zoom: the first look's voxel side is between these two factors times `first_voxel_mm`,
            log-uniform. A coarser look makes a large tumour appear as a small one.
        first_look_share: part of the samples that are a first look: the click in the middle and
            `first_voxel_mm`; the others have a voxel side fitted to the object.
        finest_voxel_mm, coarsest_voxel_mm: bounds of the fitted voxel side.
        fitted_extents: the patch side is between these two factors times the object's longest side.
        max_shift: how far the click of a fitted sample may be from the middle, as part of the side.
        cut_share: part of the samples whose scan is first cut closer around the object, each side by up to
            `max_cut_mm`. Data sets that are cropped at a fixed margin would otherwise give the object
            away by the borders of the scan.
        max_cut_mm: see above.
        rotation_degrees: largest rotation about each axis.
        stretch: largest relative change of scale per axis.
        elastic_voxels: standard deviation of the smooth displacement.
        extra_click_share: part of the samples with one to four clicks more, of both signs.
        corrected_click_share: part of the steps that get further clicks into the present error.
        max_corrected_clicks: most of those, one after the other; their number is uniform from 1 on.
        prior_share: part of the fitted samples that are given a spoiled mask as a prompt.
        implant_share: part of the samples whose object is a synthetic tumour put into the real scan.
        implant_extents_mm: shortest and longest mean diameter of those, log-uniform.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["clicked"] = "clicked"
    small_object_exponent: float = 0.0
    first_voxel_mm: float = 3.0
    first_zoom: tuple[float, float] = (0.87, 1.15)
    first_look_share: float = 0.6
    finest_voxel_mm: float = 1.0
    coarsest_voxel_mm: float = 6.0
    fitted_extents: tuple[float, float] = (0.8, 2.2)
    max_shift: float = 0.3
    cut_share: float = 0.6
    max_cut_mm: float = 40.0
    rotation_degrees: float = 15.0
    stretch: float = 0.15
    elastic_voxels: float = 1.0
    extra_click_share: float = 0.4
    corrected_click_share: float = 0.35
    max_corrected_clicks: int = Field(default=1, ge=1)
    prior_share: float = 0.35
    implant_share: float = Field(default=0.0, ge=0, le=1)
    implant_extents_mm: tuple[float, float] = (20.0, 120.0)


class WindowSampling(BaseModel):
    """Windows of one voxel size for networks that take no clicks, augmented as the clicked ones.

    Attributes:
        kind: tells this way from the others.
        voxel_mm: voxel side; the network is slid over scans at the same one.
        foreground_share: part of the windows laid around a voxel of the object; the others are laid around any
            voxel of the scan. 2/3 in the released 3DSAM-adapter; nnU-Net has 1/3.
        max_shift: how far the voxel may be from the middle, as part of the side.
        small_object_exponent, cut_share, max_cut_mm, rotation_degrees, stretch, elastic_voxels: as in
            `SamplingSection`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["windows"]
    voxel_mm: float = Field(default=3.0, gt=0)
    foreground_share: float = Field(default=2 / 3, ge=0, le=1)
    max_shift: float = 0.3
    small_object_exponent: float = 0.0
    cut_share: float = 0.6
    max_cut_mm: float = 40.0
    rotation_degrees: float = 15.0
    stretch: float = 0.15
    elastic_voxels: float = 1.0


class PublishedSampling(BaseModel):
    """Patches and augmentations of the released ProMISe-3D, 3DSAM-adapter and TAGS (one loader).

    There, each change interpolates the whole scan again; here all of them are one grid, and the scan is read
    once. A patch at the border shows what the scan has there; the released loader cuts the scan to its
    voxels above the lower clipping bound first.

    Attributes:
        kind: tells this way from the others.
        voxel_mm: voxel side.
        foreground_share: part of the patches around a voxel of the object: 2/3 as released, 1/2 in the text of
            ProMISe-3D; the others are around a background voxel.
        jitter_voxels: the patch is cut at random from one that is larger by this on each side:
            (154 - 128) / 2.
        shift_share, shift: part of the patches whose values are shifted, by up to this many HU.
        geometry: "in_plane" (released for pancreas and colon: rotation about d, zoom of h and w) or "zoom"
            (kidney and liver: one factor).
        rotation_share, rotation_degrees: of "in_plane".
        zoom_share, zoom: of either; 0.3 and [0.9, 1.1] for "in_plane", 0.8 and [0.85, 1.25] for "zoom".
        flip_share: of each axis.
        quarter_turn_share: part turned by 90, 180 or 270 degrees in the plane of d and h.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["published"]
    voxel_mm: float = Field(default=1.0, gt=0)
    foreground_share: float = Field(default=2 / 3, ge=0, le=1)
    jitter_voxels: int = Field(default=13, ge=0)
    shift_share: float = 0.5
    shift: float = 20.0
    geometry: Literal["in_plane", "zoom"] = "in_plane"
    rotation_share: float = 0.3
    rotation_degrees: float = 30.0
    zoom_share: float = 0.3
    zoom: tuple[float, float] = (0.9, 1.1)
    flip_share: float = 0.5
    quarter_turn_share: float = 0.5

    @property
    def small_object_exponent(self) -> float:
        """All scans are drawn alike."""
        return 0.0

    @model_validator(mode="after")
    def _zoom_is_a_range(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom is {self.zoom}, but takes a smallest and a largest factor above 0")
        return self


class SliceSampling(BaseModel):
    """Slices of scans as 2D images, augmented as the released ProMISe-2D augments its images.

    A scan is drawn, then one of the slices that show its object, all alike however large the object is in them
    (ours: the method was published for single images). What the defaults say is released; what they do not is
    chosen on the page of the function, `datasets.augment2d`.

    Attributes:
        kind: tells this way from the others.
        plane: of the patient that the slices follow.
        crop_share, crop: part of the images of which a random part is enlarged; its area over the image's.
        flip_share: of rows and of columns.
        move_share: part of the images that are shifted, scaled and turned together,
        shift: by at most this part of the sides,
        scale: by at most this factor more or less,
        rotation_degrees: and by at most this angle.
        blur_share: part that is blurred.
        contrast_share, contrast: part whose brightness and contrast change, each by at most this.
        grain_share: part that is sharpened, made noisy or packed as JPEG.
        dropout_share: part with squares blotted out; the truth under them stays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["slices"]
    plane: Plane = "axial"
    crop_share: float = Field(default=0.25, ge=0, le=1)
    crop: tuple[float, float] = (0.95, 1.05)
    flip_share: float = Field(default=0.25, ge=0, le=1)
    move_share: float = Field(default=0.25, ge=0, le=1)
    shift: float = Field(default=0.0625, ge=0)
    scale: float = Field(default=0.05, ge=0, lt=1)
    rotation_degrees: float = Field(default=45.0, ge=0)
    blur_share: float = Field(default=0.25, ge=0, le=1)
    contrast_share: float = Field(default=0.25, ge=0, le=1)
    contrast: float = Field(default=0.1, ge=0)
    grain_share: float = Field(default=0.25, ge=0, le=1)
    dropout_share: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _crop_is_a_range(self) -> Self:
        if not 0 < self.crop[0] <= self.crop[1]:
            raise ValueError(f"crop is {self.crop}, but takes a smallest and a largest part above 0")
        return self

    def without_changes(self) -> "SliceSampling":
        """Return the same slices as they are."""
        return SliceSampling(
            kind="slices",
            plane=self.plane,
            crop_share=0,
            flip_share=0,
            move_share=0,
            blur_share=0,
            contrast_share=0,
            grain_share=0,
            dropout_share=0,
        )


VolumeSampling = SamplingSection | WindowSampling | PublishedSampling
"""How samples for volumes are drawn."""

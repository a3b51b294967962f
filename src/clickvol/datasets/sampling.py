"""How training samples are drawn, as configuration."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clickvol.preprocessing.slices2d import Plane

_RENAMED = {
    "first_look_share": "first_view_share",
    "implant_share": "lesion_share",
    "implant_extents_mm": "lesion_mm",
}


class PatchSampling(BaseModel):
    """A simulated user's views of an object. All choices of ours: no paper trains on several scales.

    Attributes:
        kind: tells this way from the others.
        group_shares: how often each group of scans is drawn (in `clickvol train` a group is a modality, "CT" or
            "MR"); groups that are not named are not drawn; empty for all alike.
        small_object_exponent: an object is drawn with a probability that goes as its longest side to the minus
            this power; 0 draws all alike. Small tumours are rare among the large ones.
        first_voxel_mm: voxel side of a first view of a click.
        first_zoom: a first view's voxel side is between these two factors times `first_voxel_mm`, log-uniform.
            A coarser view makes a large tumour appear as a small one.
        first_view_share: part of the samples that are a first view: the click in the middle and
            `first_voxel_mm`; the others have a voxel side fitted to the object.
        finest_voxel_mm, coarsest_voxel_mm: bounds of the fitted voxel side.
        fitted_extents: the patch side is between these two factors times the object's longest side.
        fitted_around: what the middle of a fitted view is, up to `max_shift`: the "click", or as in use the
            middle of the "object", a random one to its click where it is an ellipsoid.
        max_shift: how far off the middle that may be in each direction, as part of the side.
        cut_share: part of the samples whose scan is first cut closer around the object, each side by up to
            `max_cut_mm`. Data sets that are cropped at a fixed margin would otherwise give the object
            away by the borders of the scan.
        max_cut_mm: see above.
        rotation_degrees: largest rotation about each axis.
        stretch: largest relative change of scale per axis.
        mirror_share: of each axis.
        elastic_share, elastic_voxels: part of the samples that are bent, and the mean strength: the standard
            deviation of the smooth displacement is between 0 and twice as much.
        lesion_share: part of the samples whose object is a synthetic lesion put into the real scan.
        lesion_mm: shortest and longest mean diameter of those, log-uniform.
        real_shape_share: part of those that have the shape of a real object; the others are bumpy ellipsoids.
        synthesis_share: part whose image is made from random regions with random contrast, with a lesion in it.
        remap_share: part whose grey values are mapped by a random curve.
        grey_share: part whose grey values are changed as another scanner would.
        lung_groups, lung_fill_share: groups of lung crops, and the part of their samples whose surroundings,
            which the set does not have, are made up.
        extra_click_share: part of the samples with one to four clicks more, of both signs.
        corrected_click_share: part of the steps that get further clicks into the present error.
        max_corrected_clicks: most of those, one after the other; their number is uniform from 1 on.
        prior_share: part of the fitted views that are given a spoiled mask as a prompt.
        diameter_share, slice_box_share, box_share, scribble_share: parts with one of these prompts, for
            networks that take them.
        click_kept_share: part of those that have their click, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["clicked"] = "clicked"
    group_shares: dict[str, float] = {}
    small_object_exponent: float = 0.0
    first_voxel_mm: float = 3.0
    first_zoom: tuple[float, float] = (0.87, 1.15)
    first_view_share: float = 0.6
    finest_voxel_mm: float = 1.0
    coarsest_voxel_mm: float = 6.0
    fitted_extents: tuple[float, float] = (0.8, 2.2)
    fitted_around: Literal["click", "object"] = "click"
    max_shift: float = 0.3
    cut_share: float = 0.6
    max_cut_mm: float = 40.0
    rotation_degrees: float = 15.0
    stretch: float = 0.15
    mirror_share: float = 0.5
    elastic_share: float = 0.7
    elastic_voxels: float = 1.0
    lesion_share: float = Field(default=0.0, ge=0, le=1)
    lesion_mm: tuple[float, float] = (20.0, 120.0)
    real_shape_share: float = 0.5
    synthesis_share: float = 0.0
    remap_share: float = 0.0
    grey_share: float = 1.0
    lung_groups: tuple[str, ...] = ()
    lung_fill_share: float = 0.6
    extra_click_share: float = 0.4
    corrected_click_share: float = 0.35
    max_corrected_clicks: int = Field(default=1, ge=1)
    prior_share: float = 0.35
    diameter_share: float = 0.0
    slice_box_share: float = 0.0
    box_share: float = 0.0
    scribble_share: float = 0.0
    click_kept_share: float = 0.5

    @model_validator(mode="before")
    @classmethod
    def _names_of_before(cls, content: Any) -> Any:  # noqa: ANN401  # whatever was written
        for old in _RENAMED.keys() & (content if isinstance(content, dict) else {}):
            raise ValueError(f"{old} is now called {_RENAMED[old]}; write that instead")
        return content

    def without_changes(self) -> "PatchSampling":
        """Return the same views of the real objects as they are."""
        shares = ["cut", "lesion", "synthesis", "remap", "grey", "lung_fill", "extra_click", "prior"]
        return self.model_copy(
            update={f"{name}_share": 0.0 for name in shares}
            | {"rotation_degrees": 0.0, "stretch": 0.0, "mirror_share": 0.0, "elastic_share": 0.0}
        )


class WindowSampling(BaseModel):
    """Windows of one voxel size for networks that take no clicks, augmented as the clicked ones.

    Attributes:
        kind: tells this way from the others.
        voxel_mm: voxel side; the network is slid over scans at the same one.
        foreground_share: part of the windows laid around a voxel of the object; the others are laid around any
            voxel of the scan. 2/3 in the released 3DSAM-adapter; nnU-Net has 1/3.
        max_shift: how far the voxel may be from the middle, as part of the side.
        small_object_exponent, cut_share, max_cut_mm, rotation_degrees, stretch, elastic_voxels: as in
            `PatchSampling`.
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

    def without_changes(self) -> "WindowSampling":
        """Return the same windows as they are; every one lies around the object."""
        same = {"kind": "windows", "voxel_mm": self.voxel_mm, "max_shift": self.max_shift}
        still = {"cut_share": 0.0, "rotation_degrees": 0.0, "stretch": 0.0, "elastic_voxels": 0.0}
        return WindowSampling.model_validate(same | still | {"foreground_share": 1.0})

    def as_patches(self) -> PatchSampling:
        """Return the patches that these windows are, but for where they lie and that nobody clicks."""
        same = type(self).model_fields.keys() & PatchSampling.model_fields.keys() - {"kind"}
        return PatchSampling(
            first_voxel_mm=self.voxel_mm,
            finest_voxel_mm=self.voxel_mm,
            coarsest_voxel_mm=self.voxel_mm,
            first_view_share=0.0,
            extra_click_share=0.0,
            prior_share=0.0,
            **{name: getattr(self, name) for name in same},
        )


class PublishedSampling(BaseModel):
    """Patches and augmentations of the released ProMISe-3D, 3DSAM-adapter and TAGS (one loader).

    There, each change interpolates the whole scan again; here all of them are one grid, turned and zoomed about
    the patch's middle, and the scan is read once. The released loader cuts the scan to its voxels above the
    lower clipping bound first; here it is whole.

    Attributes:
        kind: tells this way from the others.
        order: of the scans: "epochs" takes every scan once, shuffled, before any of them again, as released;
            "random" draws with replacement, modalities alike.
        voxel_mm: voxel side.
        foreground_share: part of the patches around a voxel of the object: 2/3 as released, 1/2 in the text of
            ProMISe-3D; the others are around a background voxel.
        border: "inside" moves a patch (with its jitter) that would overhang into the scan, and centres it
            where the scan is shorter, as released; "overhang" leaves it where it is.
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
    order: Literal["epochs", "random"] = "epochs"
    border: Literal["inside", "overhang"] = "inside"
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

    def without_changes(self) -> "PublishedSampling":
        """Return the same patches as they are; every one is around a voxel of the object, without jitter."""
        shares = ["shift", "rotation", "zoom", "flip", "quarter_turn"]
        still = {f"{name}_share": 0.0 for name in shares}
        return self.model_copy(update=still | {"foreground_share": 1.0, "jitter_voxels": 0})

    @model_validator(mode="after")
    def _zoom_is_a_range(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom is {self.zoom}, but takes a smallest and a largest factor above 0")
        return self


class SliceSampling(BaseModel):
    """Slices of scans as 2D images, augmented as the released ProMISe-2D augments its images.

    A scan is drawn, then one of the slices that show its object, all alike however large the object is in them
    (ours: the method was published for single images). What the defaults say is released; what they do not is
    chosen on the page of the function, `datasets.by_case.augment2d`.

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


VolumeSampling = PatchSampling | WindowSampling | PublishedSampling
"""How samples for volumes are drawn."""

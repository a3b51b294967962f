"""How training samples are drawn, as configuration."""

from pydantic import BaseModel, ConfigDict


class SamplingSection(BaseModel):
    """What a sample looks like. All choices of ours: no paper trains on several scales.

    Attributes:
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
        corrected_click_share: part of the steps that get one more click into the present error.
        prior_share: part of the fitted samples that are given a spoiled mask as a prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    prior_share: float = 0.35

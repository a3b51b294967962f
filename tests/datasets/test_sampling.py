import pytest
from pydantic import ValidationError

from clickvol.datasets.sampling import PatchSampling, WindowSampling


def test_a_misspelt_field_is_named():
    with pytest.raises(ValidationError, match="elastic_voxel\n"):
        PatchSampling(elastic_voxel=1.0)


def test_a_word_for_a_number_is_refused():
    with pytest.raises(ValidationError, match="max_shift"):
        PatchSampling(max_shift="far")


def test_it_cannot_be_changed():
    section = PatchSampling(max_shift=0.1)
    with pytest.raises(ValidationError, match="frozen"):
        section.max_shift = 0.2
    assert section.max_shift == 0.1


def test_every_field_is_documented():
    documented = PatchSampling.__doc__
    assert [name for name in PatchSampling.model_fields if name not in documented] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("first_look_share", "first_view_share"),
        ("implant_share", "lesion_share"),
        ("implant_extents_mm", "lesion_mm"),
    ],
)
def test_a_name_of_before_is_refused_with_the_new_one(old, new):
    with pytest.raises(ValidationError, match=f"{old} is now called {new}"):
        PatchSampling.model_validate({old: 0.5})


def test_windows_are_patches_of_one_voxel_size():
    windows = WindowSampling(kind="windows", voxel_mm=2.5, stretch=0.3, cut_share=0.2)
    patches = windows.as_patches()
    assert (patches.finest_voxel_mm, patches.coarsest_voxel_mm, patches.first_view_share) == (2.5, 2.5, 0)
    assert (patches.stretch, patches.cut_share, patches.extra_click_share) == (0.3, 0.2, 0)

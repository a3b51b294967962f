import pytest
from pydantic import ValidationError

from clickvol.datasets.sampling import SamplingSection


def test_a_misspelt_field_is_named():
    with pytest.raises(ValidationError, match="elastic_voxel\n"):
        SamplingSection(elastic_voxel=1.0)


def test_a_word_for_a_number_is_refused():
    with pytest.raises(ValidationError, match="max_shift"):
        SamplingSection(max_shift="far")


def test_it_cannot_be_changed():
    section = SamplingSection(max_shift=0.1)
    with pytest.raises(ValidationError, match="frozen"):
        section.max_shift = 0.2
    assert section.max_shift == 0.1


def test_every_field_is_documented():
    documented = SamplingSection.__doc__
    assert [name for name in SamplingSection.model_fields if name not in documented] == []

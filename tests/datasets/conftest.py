import pytest

from clickvol.datasets.samples import LabelledVolume
from clickvol.phantoms.phantom import make_phantom
from reference.labelled import block_case


def _phantom(diameter_mm):
    phantom = make_phantom(
        7, shape_dhw=(40, 72, 72), spacing_dhw_mm=(3.3, 2.0, 2.0), tumour_diameter_mm=diameter_mm
    )
    return LabelledVolume.of(phantom.volume, phantom.truth.array)


@pytest.fixture(scope="session")
def phantom_case():
    return _phantom(60)


@pytest.fixture(scope="session")
def box_case():
    return block_case()

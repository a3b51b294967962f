"""A prepared data set of small scans, and an nnU-Net that only writes down how it was called."""

import pytest

from reference.nnunet_venv import make_stand_in
from reference.prepared_sets import prepare_lesions


@pytest.fixture
def prepared(tmp_path):
    """Five scans; the last is not compressed."""
    return prepare_lesions(tmp_path, suffixes={4: ".nii"})


@pytest.fixture
def venv(tmp_path):
    return make_stand_in(tmp_path / "venv")

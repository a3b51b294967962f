"""A prepared data set of small scans, and an nnU-Net that only writes down how it was called."""

import pytest

from reference.nnunet_venv import make_stand_in
from reference.prepared_sets import TWO_FOLDS, prepared_of, write_case


@pytest.fixture
def prepared(tmp_path):
    """Five scans; the last is not compressed."""
    folder = tmp_path / "source"
    folder.mkdir()
    suffixes = [".nii.gz"] * 4 + [".nii"]
    cases = [write_case(folder, number, suffix=suffix) for number, suffix in enumerate(suffixes)]
    return prepared_of(cases, TWO_FOLDS)


@pytest.fixture
def venv(tmp_path):
    return make_stand_in(tmp_path / "venv")

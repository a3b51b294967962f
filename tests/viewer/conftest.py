"""A scan, and the page of a real browser with it open: one for all tests of the folder."""

import pytest

from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom
from reference.browser import launched, opened_page

SCAN_NAME = "leg.nii.gz"


@pytest.fixture(scope="package")
def phantom():
    """The patient of the demo, on fewer voxels: software rendering is slow."""
    return make_phantom(8, shape_dhw=(40, 72, 72), spacing_dhw_mm=(5.0, 2.6, 2.6), tumour_diameter_mm=100)


@pytest.fixture(scope="package")
def inside_mm(phantom):
    return phantom.volume.grid.to_world(phantom.inside).as_array()


@pytest.fixture(scope="package")
def scan(phantom, tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / SCAN_NAME
    write_volume(phantom.volume.array, phantom.volume.grid, path)
    return path


@pytest.fixture(scope="package")
def state_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="package")
def browser():
    with launched() as started:
        yield started


@pytest.fixture(scope="package")
def shared_page(browser, scan, state_folder):
    """The page with the scan open; opening takes seconds."""
    with opened_page(browser, scan, state_folder) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def opened(shared_page, scan):
    """The page, with the scan open whatever the tests of another module have left."""
    if shared_page.page.locator("#scan-name").inner_text() != scan.name:
        shared_page.page.reload()
        shared_page.wait_open(scan.name)
        shared_page.page.get_by_role("button", name="Start afresh").click()
    return shared_page


@pytest.fixture
def viewer(opened, inside_mm):
    """The page with no click on the scan, the crosshair in the tumour."""
    opened.close_notices()
    opened.undo_all()
    opened.page.locator("#canvas").focus()
    opened.go_to(inside_mm)
    yield opened
    # Nothing went wrong behind the scenes, and nothing was asked of anybody else.
    assert [text for text in opened.problems if "422" not in text] == []
    opened.problems.clear()
    assert [a for a in opened.addresses if not a.startswith((opened.origin, "data:", "blob:"))] == []

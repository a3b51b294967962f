"""The first mask of an automatic model, accepted and rejected in a real browser."""

import numpy as np
import pytest

from clickvol.interactive.record import read_record
from clickvol.io.formats import read_volume
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.predict.scan_predictor import segment
from clickvol.weights.load import load_model
from reference.browser import needs_browser, opened_page
from reference.random_models import write_random_model

needs_browser()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def proposer(tmp_path_factory):
    return write_random_model(
        sam3d_adapter_recipe("automatic", "tiny"), tmp_path_factory.mktemp("model"), seed=1
    )


@pytest.fixture(scope="module")
def state_folder(tmp_path_factory):
    """Of this module alone: where somebody has clicked before, the page offers that and proposes nothing."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def opened(browser, scan, state_folder, proposer):
    with opened_page(browser, scan, state_folder, "--propose", str(proposer)) as viewer:
        yield viewer


def test_a_proposal_is_shown_rejected_brought_back_and_accepted(opened, scan, proposer, state_folder):
    viewer, page = opened, opened.page
    page.wait_for_selector("#accept", state="visible")
    viewer.drawn()
    wanted = segment(read_volume(scan), (), load_model(str(proposer), device="cpu")).mask.array
    assert 0 < wanted.sum() < wanted.size
    assert viewer.objects()[0]["num_voxels"] == wanted.sum()
    assert "Proposal of" in page.locator("#proposal-text").inner_text()
    page.locator("#canvas").focus()
    viewer.press("Control+s")  # what nobody has looked at is not saved
    assert not page.locator("#save-dialog").is_visible()
    assert "(Y)" in page.locator("#notices").inner_text()
    viewer.press("q")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == 0
    assert page.locator("#proposal").is_hidden()
    viewer.press("Control+Shift+z")
    viewer.drawn()
    assert viewer.objects()[0]["num_voxels"] == wanted.sum()
    page.reload()
    viewer.wait_open(scan.name)
    page.locator("#resume-dialog button[value=fresh]").click()
    page.wait_for_selector("#accept", state="visible")
    viewer.drawn()
    page.locator("#canvas").focus()
    viewer.press("y")
    page.wait_for_selector("#proposal", state="hidden")
    viewer.press("Control+s")
    page.wait_for_selector("#save-dialog", state="visible")
    record = read_record(max((state_folder / "logs").rglob("*.jsonl"), key=lambda path: path.stat().st_mtime))
    (interaction,) = record.history.current
    assert interaction.kind == "given_mask"
    np.testing.assert_array_equal(interaction.voxels.mask.full(wanted.shape), wanted)
    assert viewer.problems == []

"""The client against a real server on loopback, and beside a session of this process."""

import importlib
import sys

import numpy as np
import pytest

from clickvol.errors import ClickError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.interactions import BrushEdit, EditPrompt, MaskOperation, interaction_of
from clickvol.interactive.session import InteractiveSession
from clickvol.io.volume import Volume
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble
from clickvol.server.app import create_app
from clickvol.server.client import RemoteError, RemoteSession
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import AdviceOut
from reference.live_server import served
from reference.random_models import random_model

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def address(tmp_path, root, tiny_model):
    settings = ServerSettings(state_folder=tmp_path / "state", root=root, token=TOKEN)
    with served(create_app(tiny_model, settings)) as where:
        yield where


def test_it_answers_as_a_session_of_this_process(address, tiny_model, phantom):
    local = InteractiveSession(tiny_model)
    local.set_volume(phantom.volume)
    with RemoteSession(address, token=TOKEN) as remote:
        remote.set_volume(phantom.volume)
        background = VoxelPoint(phantom.inside.d, phantom.inside.h + 4, phantom.inside.w)
        place = phantom.volume.grid.to_world(phantom.inside)
        for session in (local, remote):
            session.click(phantom.inside)
            session.click(background, positive=False)
            assert session.add_object("node") == 2
            answer = session.click(WorldPointRAS(place.x, place.y, place.z + 3), object_id=2)
            session.freeze_object(2)
            assert session.undo()
            assert session.redo()
            assert not session.redo()
        assert answer.num_voxels == local.objects[1].num_voxels
        for object_id in (None, 1, 2):
            ours, theirs = local.mask(object_id), remote.mask(object_id)
            assert np.array_equal(ours.array, theirs.array)
            assert ours.grid == theirs.grid  # to the bit, because the scan was ours
        # On the way the grid was rounded to the 32 bits of NIfTI.
        assert np.allclose(local.probability(2), remote.probability(2), atol=1e-4)
        known = [(o.id, o.name, o.frozen, o.num_voxels, len(o.clicks)) for o in local.objects]
        assert known == [(o.id, o.name, o.frozen, o.num_voxels, len(o.clicks)) for o in remote.objects]
        assert (remote.can_undo, remote.can_redo) == (local.can_undo, local.can_redo)
        remote.reset()
        assert not remote.mask().array.any()


def test_every_interaction_and_what_an_object_is_go_through(address, tiny_model, phantom):
    inside, grid = phantom.inside, phantom.volume.grid
    end = VoxelPoint(inside.d, inside.h + 4, inside.w)
    drawn = np.zeros(grid.shape_dhw, dtype=np.uint8)
    drawn[3:6, 10:20, 10:16] = 1
    voxels = PackedMask.of(drawn)
    prompts = (
        Click(inside),
        Line(inside, end),
        Box(VoxelPoint(2, 5, 5), end),
        Scribble(voxels),
        Lasso(voxels, foreground=False),
    )
    interactions = (
        *(interaction_of(prompt) for prompt in prompts),
        EditPrompt(object_id=1, place=2),
        BrushEdit.of(drawn, added=True),
        MaskOperation(object_id=1, operation="grow", mm=3),
        interaction_of(GivenMask(voxels), object_id=2),
    )
    local = InteractiveSession(tiny_model)
    local.set_volume(phantom.volume)
    with RemoteSession(address, token=TOKEN) as remote:
        remote.set_volume(phantom.volume)
        for session in (local, remote):
            session.add_object()
        for interaction in interactions:
            ours, theirs = local.add(interaction), remote.add(interaction)
            assert (ours.object_id, ours.num_voxels, list(ours.warnings)) == (
                theirs.object_id,
                theirs.num_voxels,
                theirs.warnings,
            )
            assert np.array_equal(local.mask().array, remote.mask().array)
        assert [mark.kind for mark in remote.objects[0].marks] == ["box", "scribble", "lasso"]
        remote.describe_object(2, name="node", colour="#00ff00")
        assert (remote.objects[1].name, remote.objects[1].colour) == ("node", "#00ff00")
        with pytest.raises(ClickError, match="no term"):
            remote.describe_object(2, term="nothing")
        remote.undo()
        remote.delete_object(2)
        assert [each.id for each in remote.objects] == [1]
        assert remote.advice(1) == AdviceOut()  # the mask was edited since
        remote.reset()
        remote.click(inside)
        assert remote.advice().next_click_ras_mm is not None
        with pytest.raises(RemoteError, match="proposes nothing"):
            remote.proposal()


def test_a_proposal_comes_as_a_mask_to_give(tmp_path, root, tiny_model, phantom):
    proposer = random_model(sam3d_adapter_recipe("automatic", "tiny"), seed=1)
    settings = ServerSettings(state_folder=tmp_path / "proposing", root=root)
    with served(create_app(tiny_model, settings, proposer=proposer)) as where, RemoteSession(where) as remote:
        remote.set_volume(phantom.volume)
        proposed = remote.proposal()
        assert remote.add(interaction_of(proposed)).num_voxels == proposed.voxels.num_voxels > 0
        assert np.array_equal(remote.mask().array, segment(phantom.volume, (), proposer).mask.array)


def test_scans_in_other_number_formats_arrive(address, phantom):
    array = phantom.volume.array
    with RemoteSession(address, token=TOKEN) as remote:
        for dtype in (np.int8, np.int64, np.float32):
            remote.set_volume(Volume((array % 100).astype(dtype), phantom.volume.grid))
            assert remote.objects[0].clicks == []


def test_a_scan_of_the_servers_and_its_earlier_clicks(address, phantom):
    with RemoteSession(address, token=TOKEN) as remote:
        remote.open_path("scan.nii.gz")
        remote.click(phantom.inside)
        mask = remote.mask()
    with RemoteSession(address, token=TOKEN) as remote:
        remote.open_path("scan.nii.gz")
        (log,) = remote.resumable
        remote.resume(log.log)
        assert np.array_equal(remote.mask().array, mask.array)
        with pytest.raises(RemoteError) as refused:
            remote.open_path("../secret.nii.gz")
        assert refused.value.status == 403


def test_mistakes_are_the_same_errors(address, phantom):
    with RemoteSession(address, token=TOKEN) as remote:
        with pytest.raises(ConfigError, match="set_volume first"):
            remote.click(phantom.inside)
        remote.set_volume(phantom.volume)
        with pytest.raises(ClickError, match=r"valid voxel indices are i 0\.\.43"):
            remote.click(VoxelPoint(0, 0, 44))
        with pytest.raises(ClickError, match="no click inside the object"):
            remote.click(phantom.inside, positive=False)


def test_a_wrong_token_is_said(address, phantom):
    for token in (None, "another-token-of-24-char"):
        with (
            RemoteSession(address, token=token) as remote,
            pytest.raises(RemoteError, match="token"),
        ):
            remote.set_volume(phantom.volume)


def test_a_full_disk_there_is_an_output_error(address, phantom, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with RemoteSession(address, token=TOKEN) as remote:
        remote.set_volume(phantom.volume)
        with monkeypatch.context() as patched:
            patched.setattr("clickvol.io.nifti.files.write_nifti", full)
            with pytest.raises(OutputError, match="disk is full"):
                remote.mask()
        assert not remote.mask().array.any()


@pytest.mark.parametrize("address", ["", "127.0.0.1:8000", "ftp://x", "http://"])
def test_what_is_no_address_is_said(address):
    with pytest.raises(ConfigError, match="no address"):
        RemoteSession(address)


def test_nobody_there_is_said(phantom):
    with (
        RemoteSession("http://127.0.0.1:9", timeout_seconds=5) as remote,
        pytest.raises(RemoteError, match="does not answer"),
    ):
        remote.set_volume(phantom.volume)


def test_no_proxy_is_asked(address, phantom, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with RemoteSession(address, token=TOKEN) as remote:
        remote.set_volume(phantom.volume)


def test_without_httpx_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "clickvol.server.client")
    with pytest.raises(ConfigError, match=r'pip install "clickvol\[serve\]"'):
        importlib.import_module("clickvol.server.client")

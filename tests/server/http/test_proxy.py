"""Two servers behind a real nginx with the configuration that is shipped: every kind of client below a path."""

import contextlib
import json

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from clickvol.io.formats import write_volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.server.client import RemoteSession
from reference.browser import FLAGS, ViewerPage, chromium
from reference.live_server import ServerProcess
from reference.load import load
from reference.nginx import NGINX, proxied
from reference.random_models import write_random_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine"),
]

TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path_factory.mktemp("model"))


@contextlib.contextmanager
def two_servers(card, phantom, folder):
    """Run two servers on one root and one state folder."""
    (folder / "root").mkdir()
    write_volume(phantom.volume.array, phantom.volume.grid, folder / "root" / "scan.nii.gz")
    (folder / "token").write_text(TOKEN)
    words = ("--root", folder / "root", "--model", card, "--state-folder", folder / "state")
    words += ("--root-path", "/clickvol", "--token-file", folder / "token", "--trusted-proxy", "127.0.0.1")
    servers = [ServerProcess(*words), ServerProcess(*words)]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


@contextlib.contextmanager
def behind_nginx(servers, folder, *, strips_prefix):
    (folder / "nginx").mkdir()
    places = [server.address.removeprefix("http://").removesuffix("/clickvol") for server in servers]
    with proxied(folder / "nginx", places, strips_prefix=strips_prefix) as known:
        yield known


@pytest.fixture(scope="module")
def servers(card, phantom, tmp_path_factory):
    with two_servers(card, phantom, tmp_path_factory.mktemp("servers")) as pair:
        yield pair


@pytest.fixture(params=["passes the prefix on", "takes the prefix off"])
def proxy(servers, tmp_path, request):
    with behind_nginx(servers, tmp_path, strips_prefix=request.param.startswith("takes")) as known:
        yield known


def test_every_kind_of_client_works_below_a_path(proxy, phantom, monkeypatch):
    address, signed = proxy
    monkeypatch.setenv("SSL_CERT_FILE", str(signed))
    volume, click = phantom.volume, phantom.inside
    masks = {}
    for name, kind in load.KINDS.items():
        client = kind(address, TOKEN, volume, signed)
        client.click([(click, True)])
        masks[name] = client.mask()
        assert masks[name].any(), name
        client.close()
    assert np.array_equal(masks["MONAI Label"], masks["Python"])
    moved = httpx.get(f"{address}/info", headers={"authorization": f"Bearer {TOKEN}"})
    assert moved.headers["location"] == f"{address}/info/"


def test_the_viewer_works_below_a_path(proxy, phantom):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium() is None:
        pytest.skip("there is no chromium on this machine")
    address, _ = proxy
    problems = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=[*FLAGS, "--ignore-certificate-errors"])
        try:
            viewer = ViewerPage(browser.new_page(viewport={"width": 1024, "height": 640}))
            viewer.page.on("requestfailed", lambda request: problems.append(request.url))
            viewer.page.goto(f"{address}/#token={TOKEN}")
            viewer.page.fill("#path", "scan.nii.gz")
            viewer.page.press("#path", "Enter")
            viewer.wait_open("scan.nii.gz")
        finally:
            browser.close()
    assert problems == []


def test_one_of_two_servers_dies_and_no_click_is_lost(card, phantom, tmp_path):
    places = [(phantom.inside, True), (phantom.inside, False), (phantom.inside, True)]
    with (
        two_servers(card, phantom, tmp_path) as servers,
        behind_nginx(servers, tmp_path, strips_prefix=False) as (address, signed),
        RemoteSession(address, token=TOKEN, ca_file=signed) as remote,
    ):
        remote.open_path("scan.nii.gz")
        remote.click(places[0][0])
        holder = next(s for s in servers if num_sessions(s))
        holder.kill()
        for place, positive in places[1:]:
            remote.click(place, positive=positive)
        assert len(remote.objects[0].clicks) == 3
        mask = remote.mask().array
        remote.open_path("scan.nii.gz")
        for place, positive in places:
            remote.click(place, positive=positive)
        assert np.array_equal(remote.mask().array, mask)


def num_sessions(server):
    reply = httpx.get(f"{server.address}/api/health", headers={"authorization": f"Bearer {TOKEN}"})
    return json.loads(reply.text)["sessions"]

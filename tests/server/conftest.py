"""A tiny model, a root with a scan, and a server on both."""

import json
import shutil

import pytest
from starlette.testclient import TestClient

from clickvol.io.formats import write_volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from clickvol.server.app import create_app
from clickvol.server.settings import ServerSettings
from reference.random_models import random_model

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def tiny_model():
    return random_model(promise3d_recipe("clickvol", "tiny"))


@pytest.fixture(scope="session")
def phantom():
    return make_phantom(3, shape_dhw=(16, 40, 44))


@pytest.fixture(scope="session")
def scan_file(tmp_path_factory, phantom):
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_volume(phantom.volume.array, phantom.volume.grid, path)
    return path


@pytest.fixture
def root(tmp_path, scan_file):
    """A folder of the test's own."""
    folder = tmp_path / "root"
    folder.mkdir()
    shutil.copy(scan_file, folder)
    return folder


@pytest.fixture
def make_client(tmp_path, root, tiny_model):
    """Make a client of a server with some settings; the state folder is the same for all of a test."""
    clients = []

    def make(proposer=None, **changes):
        words = {"state_folder": tmp_path / "state", "root": root, **changes}
        app = create_app(tiny_model, ServerSettings(**words), proposer=proposer)
        client = TestClient(app, base_url=ADDRESS)
        clients.append(client.__enter__())
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def inside_ras_mm(phantom):
    place = phantom.volume.grid.to_world(phantom.inside)
    return [place.x, place.y, place.z]


class Opened:
    """A session over HTTP, in few words."""

    def __init__(self, client, scan="scan.nii.gz"):
        self.client = client
        self.reply = client.post("/api/sessions", json={"path": scan})
        assert self.reply.status_code == 201, self.reply.text
        self.known = self.reply.json()
        self.id = self.known["session_id"]
        self.url = f"/api/sessions/{self.id}"

    def click(self, position, **words):
        return self.client.post(f"{self.url}/clicks", json={"position": position, **words})

    def post(self, what, **words):
        return self.client.post(f"{self.url}/{what}", json=words or None)

    def state(self):
        return self.client.get(self.url).json()

    def get(self, what, **words):
        return self.client.get(f"{self.url}/{what}", **words)


@pytest.fixture
def opened(client):
    return Opened(client)


@pytest.fixture
def open_on():
    return Opened


@pytest.fixture
def logged_kinds(tmp_path):
    """The kinds of the lines of every log under the state folder, by file name."""

    def kinds():
        logs = sorted((tmp_path / "state").rglob("*.jsonl"))
        return {log.name: [json.loads(line)["kind"] for line in log.read_text().splitlines()] for log in logs}

    return kinds

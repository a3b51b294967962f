"""What Prometheus and load balancers read."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def read():
    """The samples of /metrics: (name, labels) to value."""

    def samples(client, **words):
        reply = client.get("/metrics", **words)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(reply.text)
            for sample in family.samples
        }

    return samples


def of(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_by_kind_of_client(client, open_on, inside_ras_mm, read):
    session = open_on(client)
    session.click(inside_ras_mm)
    client.post("/api/sessions/none/undo", headers={"sec-fetch-site": "same-origin"})
    client.get("/info/")
    client.get("/v2/models")
    client.post("/claim")
    client.post("/upload_segment")
    client.get("/Meier")
    client.request("MEIER", "/healthz")
    known = read(client)
    click = {"client": "api", "route": "/api/sessions/{session_id}/clicks"}
    assert of(known, "clickvol_requests_total", **click, method="POST", status="200") == 1
    assert of(known, "clickvol_request_seconds_count", **click) == 1
    for kind, method, route, status in (
        ("viewer", "POST", "/api/sessions/{session_id}/undo", "404"),
        ("monai_label", "GET", "/info/", "200"),
        ("itk_snap", "GET", "/v2/models", "200"),
        ("nninteractive", "POST", "/claim", "200"),
        ("slicer_nninteractive", "POST", "/upload_segment", "422"),
        ("api", "GET", "-", "404"),
        ("api", "other", "/healthz", "405"),
    ):
        labels = {"client": kind, "method": method, "route": route, "status": status}
        assert of(known, "clickvol_requests_total", **labels) == 1


def test_sessions_in_memory_and_parked_are_told_apart(make_client, open_on, read):
    client = make_client(max_sessions=1)
    known = read(client)
    assert of(known, "clickvol_sessions") == of(known, "clickvol_session_memory_bytes") == 0
    for _ in range(3):
        open_on(client)
    known = read(client)
    assert of(known, "clickvol_sessions") == 3
    assert of(known, "clickvol_sessions_in_memory") == 1
    assert of(known, "clickvol_sessions_parked") == 2
    assert of(known, "clickvol_queue") == 0
    assert of(known, "clickvol_session_memory_bytes") >= 16 * 40 * 44
    assert of(known, "clickvol_session_memory_limit_bytes") == 4096 * 2**20


def test_nobody_is_named(client, root, inside_ras_mm):
    (root / "scan.nii.gz").rename(root / "Meier_Hans_1961.nii.gz")
    opened = client.post("/api/sessions", json={"path": "Meier_Hans_1961.nii.gz"}).json()
    client.post(f"/api/sessions/{opened['session_id']}/clicks", json={"position": inside_ras_mm})
    client.get("/datastore/image?image=Meier")
    client.get("/u/Meier/info/")
    client.get("/viewer/Meier.js")
    text = client.get("/metrics").text
    assert "/datastore/image" in text
    for name in ("Meier", opened["session_id"], str(root)):
        assert name not in text


def test_the_token_is_asked_for_and_wrong_ones_are_counted(make_client, read):
    client = make_client(token=TOKEN)
    assert client.get("/metrics").status_code == 401
    client.get("/metrics", headers={"authorization": "Bearer wrong"})
    known = read(client, headers={"authorization": f"Bearer {TOKEN}"})
    assert of(known, "clickvol_failed_tokens_total") == 1


def test_alive_and_ready_need_no_token(make_client, tmp_path, monkeypatch):
    client = make_client(token=TOKEN)
    assert client.get("/healthz").json() == {"ok": True}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "model": "loaded", "disk": "writable"}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clickvol.server.http.about.os.fsync", full)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "model": "loaded", "disk": "refuses"}
    assert client.get("/healthz").status_code == 200
    assert list((tmp_path / "state").glob("tmp*")) == []

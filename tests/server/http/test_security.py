import logging

import pytest
from starlette.testclient import TestClient

from clickvol.errors import ConfigError
from clickvol.server.app import create_app
from clickvol.server.http.failed_tokens import FailedTokens
from clickvol.server.settings import ServerSettings

TOKEN = "a-token-of-24-characters"
HEALTH = "/api/health"


def ask(client, method="GET", path=HEALTH, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, path, headers=names)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7", 403),
        ("", 403),
        ("127.0.0.1:80:80", 403),
        ("[::1", 403),
        ("localhost@evil.example", 403),
    ],
)
def test_only_known_names_are_answered(client, host, status):
    assert ask(client, host=host).status_code == status


def test_another_name_can_be_allowed(make_client):
    client = make_client(allowed_hosts=("scans.hospital.example",))
    assert ask(client, host="scans.hospital.example:80").status_code == 200


def test_a_server_for_others_is_known_by_its_number(make_client):
    client = make_client(host="0.0.0.0", token=TOKEN)
    known = {"authorization": f"Bearer {TOKEN}"}
    assert ask(client, host="192.168.1.7:8000", **known).status_code == 200
    assert ask(client, host="evil.example", **known).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"origin": "http://127.0.0.1:8000"}, 404),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"sec_fetch_site": "same-origin"}, 404),
        ({"sec_fetch_site": "none"}, 404),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "https://evil.example"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_change_anything(client, headers, status):
    """404 is the route's own answer: there is no such session."""
    reply = ask(client, "POST", "/api/sessions/none/undo", **headers)
    assert reply.status_code == status


def test_pages_of_other_sites_cannot_read(client):
    assert ask(client, sec_fetch_site="cross-site").status_code == 403
    assert ask(client, sec_fetch_site="cross-site", sec_fetch_mode="navigate").status_code == 403
    assert "access-control-allow-origin" not in ask(client, origin="https://evil.example").headers


def test_a_link_to_the_viewer_may_be_followed(client):
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(client, path="/", **visit).status_code == 200
    assert ask(client, "POST", "/", **visit).status_code == 403


def test_an_allowed_page_may_call(make_client):
    page = "https://ohif.hospital.example"
    client = make_client(allowed_origins=(page,))
    asked = {"origin": page, "access_control_request_method": "POST"}
    preflight = ask(client, "OPTIONS", "/infer/random", **asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == page
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    reply = ask(client, "GET", "/info/", origin=page, sec_fetch_site="cross-site")
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == page
    assert (
        ask(client, "OPTIONS", "/info/", **{**asked, "origin": "https://evil.example"}).headers.get(
            "access-control-allow-origin"
        )
        is None
    )


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
def test_a_wrong_token_is_refused(make_client, given):
    client = make_client(token=TOKEN)
    headers = {} if given is None else {"authorization": given.encode()}
    for path in (HEALTH, "/openapi.json", "/info/", "/nothing", "/api/sessions/x"):
        reply = client.get(path, headers=headers)
        assert reply.status_code == 401, path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert set(reply.json()) == {"error", "detail"}


def test_the_token_lets_in_but_not_from_the_address(make_client):
    client = make_client(token=TOKEN)
    assert ask(client, authorization=f"Bearer {TOKEN}").status_code == 200
    assert ask(client, authorization=f"bearer {TOKEN}").status_code == 200
    assert ask(client, path=f"{HEALTH}?token={TOKEN}").status_code == 401


@pytest.fixture
def clock(monkeypatch):
    """The time by which addresses wait."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("clickvol.server.http.security.FailedTokens", lambda: FailedTokens(clock))
    return clock


def test_wrong_tokens_make_an_address_wait_right_ones_do_not(make_client, clock):
    client = make_client(token=TOKEN)
    for _ in range(20):
        assert ask(client).status_code == 401
        assert ask(client, authorization=f"Bearer {TOKEN}").status_code == 200
    statuses = [ask(client, authorization=f"Bearer wrong{n}").status_code for n in range(6)]
    assert statuses == [401] * 5 + [429]
    reply = ask(client, authorization=f"Bearer {TOKEN}")  # not even compared
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert client.get(f"/u/{TOKEN}/api/health").status_code == 429
    assert client.get("/healthz").status_code == 200
    clock.now += 1
    assert ask(client, authorization=f"Bearer {TOKEN}").status_code == 200


def guess(client, forwarded_for):
    return ask(client, authorization="Bearer wrong", x_forwarded_for=forwarded_for).status_code


def test_whoever_is_no_proxy_cannot_say_who_asks(make_client, clock):
    client = make_client(token=TOKEN, trusted_proxies=("10.0.0.0/8",))
    assert [guess(client, f"1.2.3.{n}") for n in range(6)] == [401] * 5 + [429]


def test_a_proxy_says_who_asks(tmp_path, root, tiny_model, clock):
    settings = ServerSettings(
        state_folder=tmp_path, root=root, token=TOKEN, trusted_proxies=("10.0.0.0/8",), root_path="/clickvol"
    )
    peer = ("10.1.2.3", 5000)
    with TestClient(create_app(tiny_model, settings), base_url="http://127.0.0.1", client=peer) as client:
        # What stands before the address that the proxy saw is the client's own word.
        assert [guess(client, f"9.9.9.{n}, 1.2.3.4") for n in range(6)] == [401] * 5 + [429]
        assert guess(client, "1.2.3.5") == 401
        headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-proto": "https"}
        moved = client.get("/info", headers=headers, follow_redirects=False)
        assert moved.headers["location"] == "https://127.0.0.1/clickvol/info/"


@pytest.mark.parametrize("prefix", ["", "/clickvol", "/u/anne", "/clickvol/u/anne"])
def test_below_a_root_path_all_is_where_it_was(make_client, prefix):
    client = make_client(root_path="/clickvol")
    assert client.get(f"{prefix}/api/health").status_code == 200
    assert "viewer/style.css" in client.get(f"{prefix}/").text
    assert client.get(f"{prefix}/viewer/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get(f"{prefix}/viewer/app.js").headers["cache-control"] == "no-cache"
    assert client.get(f"{prefix}/info").json()["name"] == "clickvol"
    assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/clickvol"}]
    assert client.get(f"{prefix}/viewer/%2e%2e/server/app.py").status_code == 404
    assert client.get(f"{prefix}/clickvolapi/health").status_code == 404


def test_the_prefix_without_a_slash_leads_to_the_page(make_client):
    client = make_client(root_path="/clickvol")
    moved = client.get("/clickvol", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.1:8000/clickvol/")


def test_a_root_path_that_is_one_of_the_routes_is_refused(make_client):
    with pytest.raises(ConfigError, match="/api is a path of the server itself"):
        make_client(root_path="/api")


def test_the_page_itself_comes_before_the_token(make_client):
    client = make_client(token=TOKEN)
    assert client.get("/").status_code == 200
    assert client.get("/viewer/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/viewer/../server/app.py").status_code in (401, 404)
    assert client.get("/viewer/%2e%2e/server/app.py").status_code == 404


def test_every_answer_carries_the_headers(client):
    for path in ("/", "/viewer/app.js", HEALTH, "/nothing", "/api/sessions/x"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "cache-control" in headers
    assert client.get(HEALTH).headers["cache-control"] == "no-store"
    assert ask(client, host="evil.example").headers["x-frame-options"] == "DENY"


def test_a_body_that_says_it_is_too_long_is_not_read(make_client):
    client = make_client(max_upload_mb=1)
    file = {"scan": ("a.nii", b"\0" * (1 << 20))}
    assert client.post("/api/sessions", files=file).status_code == 413
    reply = client.post("/api/sessions", content=b"x", headers={"content-length": "9" * 5000})
    assert reply.status_code == 413
    reply = client.post("/api/sessions", content=b"x", headers={"content-length": "-1"})
    assert reply.status_code == 400


def test_a_body_that_does_not_say_is_counted(make_client, tmp_path):
    client = make_client(max_upload_mb=1)

    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\n'
        for _ in range(40):
            yield b"\0" * (1 << 16)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = client.post("/api/sessions", content=endless(), headers=headers)
    assert reply.status_code == 413
    assert reply.json()["error"].startswith("the request is longer than the 1 MiB")
    assert list((tmp_path / "state" / "open").iterdir()) == []


def test_json_may_not_be_long_at_all(client):
    reply = client.post("/api/sessions", content=b'{"path": "' + b"x" * (1 << 18) + b'"}')
    assert reply.status_code == 413


def test_a_drawing_may_be_as_long_as_a_mask_of_the_largest_scan(make_client):
    client = make_client(max_voxels=6_000_000)
    session = client.post("/api/sessions", json={"path": "scan.nii.gz"}).json()["session_id"]
    allowed = (1 << 18) + 1_000_000
    for length, status in ((allowed, 422), (allowed + 1, 413)):  # 422: it was read, and says nothing
        for method, end in (("POST", "interactions"), ("PATCH", "objects/1/mask")):
            body = b"{" + b" " * (length - 2) + b"}"
            reply = client.request(method, f"/api/sessions/{session}/{end}", content=body)
            assert reply.status_code == status, reply.text
    reply = make_client(max_upload_mb=1).post("/api/sessions/a/interactions", content=b" " * (3 << 20))
    assert reply.status_code == 413


def test_the_log_names_nobody(client, caplog, root, inside_ras_mm):
    (root / "scan.nii.gz").rename(root / "Meier_Hans_1961.nii.gz")
    with caplog.at_level(logging.DEBUG):
        opened = client.post("/api/sessions", json={"path": "Meier_Hans_1961.nii.gz"})
        url = f"/api/sessions/{opened.json()['session_id']}"
        client.post(f"{url}/clicks", json={"position": inside_ras_mm})
        client.post("/api/sessions", json={"path": "Meier_not_there.nii.gz"})
        client.get("/datastore/image?image=Meier")
        client.get("/Meier")
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("clickvol"))
    assert "POST /api/sessions 201" in text
    assert "POST /api/sessions/{session_id}/clicks 200" in text
    assert "GET /datastore/image 404" in text
    assert "GET - 404" in text
    assert "Meier" not in text
    assert opened.json()["session_id"] not in text
    assert str(root) not in text


def test_an_unexpected_error_tells_nothing(client, caplog, monkeypatch):
    def broken(*_):
        raise KeyError("/home/meier/scan of Meier")

    monkeypatch.setattr("clickvol.server.monai_label.images.os.walk", broken)
    reply = client.get("/datastore/")
    assert reply.status_code == 500
    message = "the server made a mistake; try again, and tell its owner if it stays"
    assert reply.json() == {"error": message, "detail": message}
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "unexpected KeyError at" in text
    assert "Meier" not in text
    assert all(record.exc_info is None for record in caplog.records)

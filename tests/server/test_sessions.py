import os
import time

import pytest

from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom
from clickvol.server.refusal import RefusedError
from clickvol.server.sessions import Live, SessionRegistry
from clickvol.server.settings import ServerSettings


def mask_of(opened):
    reply = opened.get("mask.nii.gz")
    assert reply.status_code == 200
    return reply.content


def test_what_is_kept_is_for_this_user_alone(opened, inside_ras_mm, tmp_path):
    opened.click(inside_ras_mm)
    opened.get("scan.nii.gz")
    state = tmp_path / "state"
    for folder in (state, state / "open", state / "logs", *(state / "open").iterdir()):
        assert folder.stat().st_mode & 0o077 == 0, folder
    for name in ("session.json", ".lock"):
        (place,) = state.rglob(name)
        assert place.stat().st_mode & 0o077 == 0, name
    (log,) = state.rglob("*.jsonl")
    assert log.stat().st_mode & 0o077 == 0


def test_the_id_is_not_on_disk(opened, inside_ras_mm, tmp_path):
    opened.click(inside_ras_mm)
    for place in (tmp_path / "state").rglob("*"):
        assert opened.id not in str(place)
        if place.is_file():
            assert opened.id.encode() not in place.read_bytes()


def test_a_new_process_finds_the_sessions_of_one_that_ended(make_client, open_on, inside_ras_mm):
    opened = open_on(make_client())
    opened.click(inside_ras_mm)
    opened.post("objects", name="node")
    opened.click([*inside_ras_mm[:2], inside_ras_mm[2] + 1], object_id=2)
    before, mask = opened.state(), mask_of(opened)
    opened.client.__exit__(None, None, None)
    opened.client = make_client()
    after = opened.state()
    assert after["objects"] == before["objects"]
    assert (after["can_undo"], after["can_redo"]) == (True, False)
    assert after["revision"] >= before["revision"]
    assert mask_of(opened) == mask
    assert opened.post("undo").json()["state"]["objects"][1]["clicks"] == []


def test_a_session_in_use_by_another_process_is_left_alone(make_client, open_on, tmp_path):
    opened = open_on(make_client())
    registry = SessionRegistry(ServerSettings(state_folder=tmp_path / "state"))
    assert registry.num_sessions == 0
    with pytest.raises(RefusedError):
        registry.find(opened.id)
    assert opened.post("heartbeat").status_code == 200


def test_sessions_beyond_the_memory_wait_on_disk(make_client, open_on, inside_ras_mm, monkeypatch):
    monkeypatch.setattr(Live, "num_bytes", property(lambda _: 600_000))
    client = make_client(memory_mb=1)
    service = client.app.state.service
    first, second = open_on(client), open_on(client)
    first.click(inside_ras_mm)
    mask, state = mask_of(first), first.state()
    second.click(inside_ras_mm)
    live = [served.live is not None for served in service.registry._sessions.values()]
    assert live == [False, True]
    assert first.state() == state  # asked without opening it
    assert [served.live is not None for served in service.registry._sessions.values()] == live
    assert mask_of(first) == mask
    live = [served.live is not None for served in service.registry._sessions.values()]
    assert live == [True, False]
    assert first.state()["revision"] == state["revision"]


def test_with_memory_enough_nothing_is_parked(make_client, open_on, inside_ras_mm):
    client = make_client()
    for opened in (open_on(client), open_on(client)):
        opened.click(inside_ras_mm)
    sessions = client.app.state.service.registry._sessions.values()
    assert all(served.live is not None and served.num_bytes > 10_000 for served in sessions)


def test_earlier_clicks_on_the_same_scan_are_offered_and_taken_over(
    client, open_on, inside_ras_mm, tmp_path, logged_kinds
):
    earlier = open_on(client)
    earlier.click(inside_ras_mm)
    mask = mask_of(earlier)
    client.delete(earlier.url)
    later = open_on(client)
    (offered,) = later.known["resumable"]
    assert offered["num_clicks"] == 1
    state = later.post("resume", log=offered["log"]).json()["state"]
    assert len(state["objects"][0]["clicks"]) == 1
    assert mask_of(later) == mask
    later.post("undo")
    (kinds,) = logged_kinds().values()
    assert kinds == ["clickvol-session", "click", "answered", "undo"]
    assert open_on(client).post("resume", log="../" + offered["log"]).status_code == 404


def test_taking_over_ends_the_session_that_had_it(client, open_on, inside_ras_mm, logged_kinds):
    earlier = open_on(client)
    earlier.click(inside_ras_mm)
    later = open_on(client)
    later.click([*inside_ras_mm[:2], inside_ras_mm[2] + 1])
    (offered,) = later.known["resumable"]
    assert later.post("resume", log=offered["log"]).status_code == 200
    assert earlier.post("heartbeat").status_code == 404
    assert len(logged_kinds()) == 2
    # The clicks that were there before can be had again.
    assert len(open_on(client).known["resumable"]) == 2


def test_logs_of_other_scans_are_not_offered(client, open_on, root, inside_ras_mm):
    open_on(client).click(inside_ras_mm)
    other = make_phantom(4, shape_dhw=(16, 40, 44)).volume
    write_volume(other.array, other.grid, root / "other.nii.gz")
    assert open_on(client, "other.nii.gz").known["resumable"] == []


def test_a_damaged_log_is_said_and_another_can_be_taken(client, open_on, inside_ras_mm, tmp_path):
    open_on(client).click(inside_ras_mm)
    later = open_on(client)
    (log,) = (tmp_path / "state").rglob("*.jsonl")
    log.write_text(log.read_text().replace("click", "clock"))
    assert later.post("resume", log=log.stem).status_code == 404
    assert later.click(inside_ras_mm).status_code == 200


def test_old_logs_and_sessions_without_a_scan_are_removed(tmp_path):
    settings = ServerSettings(state_folder=tmp_path / "state", keep_log_days=2)
    SessionRegistry(settings).release_all()
    old, new = (settings.state_folder / "logs" / name for name in ("old.jsonl", "new.jsonl"))
    for place, days in ((old, 3), (new, 1)):
        place.touch()
        os.utime(place, (time.time() - days * 86400,) * 2)
    (settings.state_folder / "open" / "unfinished").mkdir()
    SessionRegistry(settings).release_all()
    assert not old.exists()
    assert new.exists()
    assert list((settings.state_folder / "open").iterdir()) == []


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot write"):
        SessionRegistry(ServerSettings(state_folder=tmp_path / "file" / "state"))

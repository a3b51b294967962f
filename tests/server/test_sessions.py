import os
import time

import pytest

from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom
from clickvol.server.refusal import RefusedError
from clickvol.server.sessions import Sessions
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
    (record,) = state.rglob("session.json")
    assert record.stat().st_mode & 0o077 == 0
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
    assert after["tag"] == before["tag"]
    assert mask_of(opened) == mask
    assert opened.post("undo").json()["state"]["objects"][1]["clicks"] == []


def test_a_session_in_use_by_another_process_is_left_alone(make_client, open_on, tiny_model, tmp_path):
    opened = open_on(make_client())
    sessions = Sessions(tiny_model, ServerSettings(state_folder=tmp_path / "state"))
    assert sessions.num_sessions == 0
    with pytest.raises(RefusedError, match="another process") as refused:
        sessions.get(opened.id)
    assert refused.value.status == 503
    assert opened.post("heartbeat").status_code == 200
    # When that process has ended, the other one has the session at once.
    opened.client.__exit__(None, None, None)
    assert sessions.get(opened.id).record is not None
    sessions.close()


def test_servers_with_one_state_folder_derive_the_same_ids(tiny_model, tmp_path):
    ids = []
    for folder in ("a", "a", "b"):
        sessions = Sessions(tiny_model, ServerSettings(state_folder=tmp_path / folder))
        ids.append([sessions.derived_id(*parts) for parts in (("x", "y"), ("xy", ""))])
        sessions.close()
    assert ids[0] == ids[1] != ids[2]
    assert ids[0][0] != ids[0][1]
    assert (tmp_path / "a" / "secret").stat().st_mode & 0o077 == 0


def test_sessions_beyond_the_memory_wait_on_disk(make_client, open_on, inside_ras_mm, monkeypatch):
    monkeypatch.setattr(InteractiveSession, "memory_bytes", property(lambda _: 600_000))
    client = make_client(memory_mb=1)
    first, second = open_on(client), open_on(client)
    first.click(inside_ras_mm)
    mask, state = mask_of(first), first.state()
    second.click(inside_ras_mm)
    assert in_memory(client) == [False, True]
    assert first.state() == state  # asked without opening it
    assert in_memory(client) == [False, True]
    assert mask_of(first) == mask
    assert in_memory(client) == [True, False]
    assert first.state() == state


def test_when_sessions_are_used_up_the_least_recently_used_waits_on_disk(make_client, open_on, inside_ras_mm):
    client = make_client(max_sessions=2)
    sessions = [open_on(client) for _ in range(3)]
    assert in_memory(client) == [False, True, True]
    for opened in sessions:
        assert opened.click(inside_ras_mm).status_code == 200
    assert in_memory(client) == [False, True, True]
    assert len({mask_of(opened) for opened in sessions}) == 1


def test_two_people_on_one_scan_have_two_sessions(client, open_on, inside_ras_mm):
    """Nobody's session goes over to who opens the same scan later."""
    one, other = open_on(client), open_on(client)
    one.click(inside_ras_mm)
    mask = mask_of(one)
    assert other.state()["objects"][0]["clicks"] == []
    other.click([*inside_ras_mm[:2], inside_ras_mm[2] + 1])
    client.delete(other.url)
    assert mask_of(one) == mask
    assert one.click(inside_ras_mm, positive=True).status_code == 200


def in_memory(client):
    return [served.session is not None for served in client.app.state.sessions._sessions.values()]


def test_with_memory_enough_nothing_is_parked(make_client, open_on, inside_ras_mm):
    client = make_client()
    for opened in (open_on(client), open_on(client)):
        opened.click(inside_ras_mm)
    assert in_memory(client) == [True, True]
    sessions = client.app.state.sessions
    assert all(served.num_bytes > 10_000 for served in sessions._sessions.values())
    assert sessions.num_bytes == sum(served.num_bytes for served in sessions._sessions.values())


def test_earlier_clicks_on_the_same_scan_are_offered_and_copied(
    client, open_on, inside_ras_mm, tmp_path, logged_kinds
):
    earlier = open_on(client)
    earlier.click(inside_ras_mm)
    mask, state = mask_of(earlier), earlier.state()
    client.delete(earlier.url)
    later = open_on(client)
    (offered,) = later.known["resumable"]
    assert offered["num_clicks"] == 1
    resumed = later.post("resume", log=offered["log"]).json()["state"]
    assert {**resumed, "busy": False} == state
    assert mask_of(later) == mask
    later.post("undo")
    assert later.state()["objects"][0]["clicks"] == []
    old, new = sorted(logged_kinds().values(), key=lambda kinds: "undo" in kinds)
    assert old == ["clickvol-session", "click", "answered"]
    assert new == ["clickvol-session", "click", "undo"]
    assert open_on(client).post("resume", log="../" + offered["log"]).status_code == 404


def test_clicks_of_an_open_session_are_copied_and_both_go_on(client, open_on, inside_ras_mm):
    one, other = open_on(client), open_on(client)
    moved = [*inside_ras_mm[:2], inside_ras_mm[2] + 1]
    one.click(inside_ras_mm)
    one.click(moved)
    one.post("undo")
    (offered,) = open_on(client).known["resumable"]
    assert offered["num_clicks"] == 1
    other.click(moved)
    resumed = other.post("resume", log=offered["log"]).json()["state"]
    assert resumed["objects"] == one.state()["objects"]
    assert resumed["can_redo"] is True
    # What was there before can be had again, and the session that the clicks came from goes on.
    assert other.post("undo").json()["state"]["objects"][0]["clicks"] == []
    assert other.post("undo").json()["state"]["objects"][0]["clicks"][0]["ras_mm"] == pytest.approx(moved)
    assert one.post("redo").status_code == 200


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


def test_old_logs_and_sessions_without_a_scan_are_removed(tiny_model, tmp_path):
    settings = ServerSettings(state_folder=tmp_path / "state", keep_log_days=2)
    Sessions(tiny_model, settings).close()
    old, new = (settings.state_folder / "logs" / key / "a.jsonl" for key in ("old", "new"))
    for place, days in ((old, 3), (new, 1)):
        place.parent.mkdir()
        place.touch()
        os.utime(place, (time.time() - days * 86400,) * 2)
    (settings.state_folder / "open" / "unfinished").mkdir()
    Sessions(tiny_model, settings).close()
    assert not old.parent.exists()
    assert new.exists()
    assert list((settings.state_folder / "open").iterdir()) == []


def test_what_an_earlier_build_left_is_opened(make_client, open_on, inside_ras_mm, tmp_path):
    """It had the logs of open sessions in their folders, and those of ended ones side by side."""
    opened = open_on(make_client())
    opened.click(inside_ras_mm)
    ended = open_on(opened.client)
    ended.click([*inside_ras_mm[:2], inside_ras_mm[2] + 1])
    state, key = opened.state(), opened.client.app.state.sessions.get(opened.id).folder.name
    opened.client.delete(ended.url)
    opened.client.__exit__(None, None, None)
    logs = tmp_path / "state" / "logs"
    for log in sorted(logs.rglob("*.jsonl")):
        log.replace(tmp_path / "state" / "open" / key / log.name if log.parent.name == key else logs / log.name)
    opened.client = make_client()
    assert opened.state() == state
    assert [log["num_clicks"] for log in open_on(opened.client).known["resumable"]] == [1, 1]


def test_a_state_folder_that_cannot_be_made_is_said(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot write"):
        Sessions(tiny_model, ServerSettings(state_folder=tmp_path / "file" / "state"))

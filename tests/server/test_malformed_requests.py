"""Whatever is sent, the server gives a reason and never fails: schemathesis reads the OpenAPI document."""

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from clickvol.errors import ConfigError
from clickvol.server.app import create_app
from clickvol.server.client import RemoteError, RemoteSession
from clickvol.server.settings import ServerSettings
from reference.live_server import served

EXAMPLES = 3
"""For each route, once as the document says and once against it (more: docs/explanation/reliability.md)."""

REFUSED_FOR_GOOD_REASON = {503}
"""Too many sessions at once; what a failure of the program would give is 500."""


class Sessions:
    """A session that is there whenever a request is made, though one of them may be to close it."""

    def __init__(self, address):
        self._remote = RemoteSession(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._remote.close()

    def alive(self):
        try:
            self._remote._ask("POST", "heartbeat")
        except (RemoteError, ConfigError):
            self._remote.open_path("scan.nii.gz")
        return self._remote._session().session_id


@pytest.mark.slow
def test_no_request_makes_the_server_fail(tmp_path, root, tiny_model):
    # Imported here, as it takes a second and other workers collect this test without running it.
    import schemathesis
    from schemathesis import GenerationMode

    state = tmp_path / "state"
    app = create_app(tiny_model, ServerSettings(state_folder=state, root=root, max_sessions=1000))
    statuses = {}
    with served(app) as address, Sessions(address) as sessions:
        schema = schemathesis.openapi.from_dict(app.openapi())
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                is_wrong = mode is GenerationMode.NEGATIVE
                if is_wrong and not has_something_to_get_wrong(operation):
                    continue
                seen = statuses.setdefault(operation.label, set())
                with contextlib.suppress(*[Unsatisfiable] * is_wrong):  # where anything is right
                    ask(operation, mode, address, sessions, seen)
    assert len(statuses) > 20
    assert 200 in statuses["POST /api/sessions/{session_id}/undo"]
    assert 200 in statuses["GET /api/sessions/{session_id}/mask.nii.gz"]
    assert 422 in statuses["POST /api/sessions/{session_id}/clicks"]


def has_something_to_get_wrong(operation):
    """Tell whether a request says more than its session, for which `ask` puts one that is there."""
    places = (operation.path_parameters, operation.query, operation.headers, operation.cookies, operation.body)
    return any(getattr(value, "name", "") != "session_id" for place in places for value in place)


def ask(operation, mode, address, sessions, seen):
    """Make some requests of one kind."""
    from schemathesis.checks import not_a_server_error

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def request(case):
        if "session_id" in (case.path_parameters or {}):
            case.path_parameters["session_id"] = sessions.alive()
        reply = case.call(base_url=address)
        seen.add(reply.status_code)
        if reply.status_code not in REFUSED_FOR_GOOD_REASON:
            case.validate_response(reply, checks=[not_a_server_error])
        if reply.status_code >= 400:
            assert set(reply.json()) == {"error", "detail"}
            assert "\n" not in reply.json()["error"]

    request()

"""What routes ask for by the type of an argument."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from clickvol.interactive.interactions import Shaping
from clickvol.server.refusal import parse_json, parse_values
from clickvol.server.scans import (
    SCAN_SUFFIXES,
    find_under_root,
    is_form,
    read_form,
    store,
    text_field,
    uploaded,
)
from clickvol.server.served_session import ServedSession
from clickvol.server.sessions import Action, Sessions, T
from clickvol.server.wire import AnswerOut, ChangedOut, ClickedOut, NamedIn, StateOut
from clickvol.server.worker import IsCancelled


async def _sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


All = Annotated[Sessions, Depends(_sessions_of)]
"""The sessions of the server."""


class Opened:
    """The session that a request names by the id in its path."""

    def __init__(self, session_id: str, sessions: All, request: Request) -> None:
        self.sessions = sessions
        self.served: ServedSession = sessions.get(session_id)
        self.is_gone = request.is_disconnected
        self._request = request

    async def run(self, action: Action[T]) -> tuple[T, StateOut]:
        """Do something with it; return what came of it, and the state after it."""
        return await self.sessions.run(self.served, action, self.is_gone)

    async def get(self, action: Action[T]) -> T:
        """Do something with it; return what came of it."""
        return (await self.run(action))[0]

    async def changed(self, action: Action[object]) -> ChangedOut:
        """Do something with it; return the state after it."""
        return ChangedOut(state=(await self.run(action))[1])

    async def add(self, interaction: Shaping) -> ClickedOut:
        """Add an interaction, and compute the mask that follows."""
        answer, state = await self.run(
            lambda session, is_cancelled: self.served.add(session, interaction, is_cancelled)
        )
        return ClickedOut(state=state, answer=AnswerOut.of(answer))

    async def read_given(
        self,
        field: str,
        named: type[NamedIn],
        read: Callable[[Path, Any], T],
        suffixes: tuple[str, ...] = SCAN_SUFFIXES,
    ) -> T:
        """Read the file that the request brings in a form, which is gone then, or names under the root.

        Args:
            field: of the form.
            named: what is said of a file that is named; all but the path may be said of one that is brought.
            read: the file, with what is said of it.
            suffixes: that it may have.
        """
        if not is_form(self._request):
            given = parse_json(named, await self._request.body())
            path = find_under_root(self.sessions.settings.root, given.path, suffixes)
            return await self.sessions.on_files(lambda _: read(path, given))
        async with read_form(self._request) as form:
            file = uploaded(form, field)
            texts = {name: text_field(form, name) for name in named.model_fields if name != "path"}
            said = parse_values(named, texts | {"path": field})

            def read_upload(_: IsCancelled) -> T:
                with tempfile.TemporaryDirectory(dir=self.served.folder, prefix="work-") as folder:
                    return read(store(file, Path(folder), field, suffixes), said)

            return await self.sessions.on_files(read_upload)


Session = Annotated[Opened, Depends()]

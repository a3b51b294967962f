"""What routes ask for by the type of an argument."""

from typing import Annotated

from fastapi import Depends, Request

from clickvol.server.sessions import Sessions


async def _sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


All = Annotated[Sessions, Depends(_sessions_of)]
"""The sessions of the server."""

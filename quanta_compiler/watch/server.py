"""The server of the page: on this machine alone, one page, and a stream of what is on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route
from watchfiles import awatch

from quanta_compiler.pages.page import assemble
from quanta_compiler.watch.views import View, view

HOSTS = ["127.0.0.1", "localhost"]
"""Another name for this machine, of a page elsewhere, gets nothing."""


class Watched:
    """The files, what is shown of them, and who waits for the next change."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.views: dict[Path, View] = {}
        self.version = 0
        self.changed = asyncio.Condition()

    async def look(self, files: Sequence[Path]) -> None:
        """Look at files anew, and tell whoever waits."""
        for file in files:
            self.views[file] = await run_in_threadpool(view, file, self.views.get(file))
        async with self.changed:
            self.version += 1
            self.changed.notify_all()

    async def follow(self) -> None:
        """Look at every file that is saved, until the server ends; editors put a new file in the place of the old."""
        places = {file.resolve(): file for file in self.files}
        await self.look(self.files)
        async for changes in awatch(*{place.parent for place in places}, recursive=False, debounce=100):
            changed = {Path(path).resolve() for _, path in changes}
            if saved := [file for place, file in places.items() if place in changed]:
                await self.look(saved)

    async def events(self) -> AsyncIterator[str]:
        """Yield all views as server-sent events, at once and after every change."""
        shown = 0
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda before=shown: self.version > before)  # type: ignore[misc]
                shown = self.version
            views = [self.views[file].to_dict() for file in self.files]
            yield f"data: {json.dumps(views)}\n\n"


def application(files: Sequence[Path]) -> Starlette:
    """Return the application that shows some files."""
    page = assemble("watch.html", ("watch.js",), "quanta watch", {}, is_live=True)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.watched = Watched(files)
        following = asyncio.create_task(app.state.watched.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    async def events(request: Request) -> StreamingResponse:
        stream = request.app.state.watched.events()
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def show(_: Request) -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    routes = [Route("/", show), Route("/events", events)]
    return Starlette(
        routes=routes, lifespan=lifespan, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)]
    )

"""The server of the page: on this machine alone, one page, and a stream of what is on it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
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
        self.stamps: dict[Path, tuple[int, ...] | None] = {}
        self.version = 0
        self.is_over = False
        self.changed = asyncio.Condition()

    async def look(self, files: Sequence[Path]) -> None:
        """Look at files anew, and tell those who wait."""
        for file in files:
            self.stamps[file] = _stamp(file)
            self.views[file] = await run_in_threadpool(view, file, self.views.get(file))
        async with self.changed:
            self.version += 1
            self.changed.notify_all()

    async def follow(self) -> None:
        """Look at every file that is saved, until the server ends; editors put a new file in the place of the old."""
        await self.look(self.files)
        folders = {place.parent for file in self.files for place in (file.absolute(), file.resolve())}
        # Every second as well: a file may have been saved before the watch began.
        async for _ in awatch(*folders, recursive=False, debounce=100, rust_timeout=1000, yield_on_timeout=True):
            if saved := [file for file in self.files if _stamp(file) != self.stamps[file]]:
                await self.look(saved)

    async def end(self) -> None:
        """End all streams, so that the server can go."""
        async with self.changed:
            self.is_over = True
            self.changed.notify_all()

    async def events(self) -> AsyncIterator[str]:
        """Yield all views as server-sent events, at once and after every change."""
        shown = 0
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda before=shown: self.is_over or self.version > before)  # type: ignore[misc]
                shown = self.version
            if self.is_over:
                return
            views = [self.views[file].to_dict() for file in self.files]
            yield f"data: {json.dumps(views)}\n\n"


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Return what changes as a file is saved; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


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


class Server(uvicorn.Server):
    """A server that ends its streams when it stops: otherwise they last as long as the page is open."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then all the rest."""
        await self.config.app.state.watched.end()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(files: Sequence[Path], listener: socket.socket) -> None:
    """Show files on a socket until the program is interrupted."""
    config = uvicorn.Config(application(files), log_level="critical", timeout_graceful_shutdown=2)
    # Ctrl+C is how it ends, not how it fails.
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])

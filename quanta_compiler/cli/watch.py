"""`quanta watch`: options parsed, a page served until it is interrupted."""

import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded, without_numpy
from quanta_compiler.diagnostics import refusal
from quanta_compiler.system.extras import WATCH, require
from quanta_compiler.text.console import tell

HOST = "127.0.0.1"


@guarded
def watch(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Circuit files, side by side.")],
    *,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port on this machine; 0: one that is free.")
    ] = 8765,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show circuits in a browser while you edit them.

    A page on 127.0.0.1 with the diagram, the figures beside LoRA r=8, and every mistake with its place, anew at every
    save. Ctrl+C ends it.
    """
    for file in files:
        if not file.is_file():
            fact = "is a folder" if file.is_dir() else "no such file"
            raise refusal(file, fact, hint="`quanta new` prints a circuit to start from")
    require("quanta watch", *WATCH)
    with without_numpy():
        from quanta_compiler.watch.server import serve

    with _listening(port) as listener:
        listener.listen()
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        tell(f"{address} shows {', '.join(map(str, files))}; Ctrl+C ends it")
        if opens:
            import webbrowser

            webbrowser.open(address)
        serve(files, listener)


def _listening(port: int) -> socket.socket:
    """Return a socket of this machine alone that listens at a port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # where it would let another program share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        fact = f"port {port} of {HOST} cannot be used: {error.strerror or error}"
        raise refusal("quanta", fact, hint="choose another with --port, or 0 for one that is free") from None
    return listener

"""Where the work of a search is done: in this process, in processes of this machine, or on a cluster, all by joblib."""

import asyncio
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, TypeVar

from quanta_compiler.diagnostics import Diagnostic, SpecError, refusal
from quanta_compiler.system.extras import require
from quanta_compiler.text.console import tell_diagnostics

BACKENDS = ("loky", "threading", "dask", "ray")
CLUSTERS = ("dask", "ray")
_CONNECT_SECONDS = 5
"""How long a cluster is waited for."""
_LONELY_SECONDS = 30
"""How long a cluster may have no workers before that is an error."""
_MORE_WORKERS = "start some with `dask worker ADDRESS`"
_GO_ON = "what is finished is kept: go on with --resume"
_WAVE = 4
"""Tasks a worker at a time, on a backend that returns results only when all are there."""

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes, threads or workers of a cluster there are, and where."""

    jobs: int = 1
    backend: str = "loky"
    cluster: str | None = None
    """The address of a scheduler; None: of the backend's own choice."""

    def __post_init__(self) -> None:
        """Raise MissingExtraError where a package for them is missing."""
        if self.backend in CLUSTERS:
            require(f"--backend {self.backend}", *(("distributed",) if self.backend == "dask" else ()), "joblib")
        elif not self.is_alone:
            require(f"a search with {self.jobs} jobs", "joblib", instead=", or add --jobs 1")

    @property
    def is_alone(self) -> bool:
        """Return whether there are none beside this process."""
        return self.jobs == 1 and self.backend not in CLUSTERS


class Team:
    """Workers at hand, a `joblib.Parallel` or None: `results` spreads tasks over them."""

    def __init__(self, parallel: Any, workers: Workers) -> None:
        self._parallel = parallel
        self._workers = workers

    def results(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        deadline: float | None = None,
        *,
        is_small: bool = False,
    ) -> Iterator[Result]:
        """Yield what `function` returns for each task, as they are finished; begin none after the deadline.

        `deadline` is a time of `time.monotonic`. What `is_small` is done in this process, sooner than another is
        started; a cluster is there already.

        Raises:
            SpecError: a worker was killed, or the cluster is gone.

        """
        begun = takewhile(lambda _: deadline is None or time.monotonic() < deadline, tasks)
        if self._parallel is None or (is_small and self._workers.backend not in CLUSTERS):
            yield from map(function, begun)
            return
        from joblib import delayed

        calls = (delayed(function)(task) for task in begun)
        with _losses_told(self._workers):
            if self._workers.backend != "ray":
                # The first tasks are handed out, for which processes are started.
                with _deaf_children() if self._workers.backend == "loky" else nullcontext():
                    results = self._parallel(calls)
                yield from results
                return
            while wave := list(islice(calls, _WAVE * self._workers.jobs)):
                yield from self._parallel(wave)


@contextmanager
def _losses_told(workers: Workers) -> Iterator[None]:
    """Tell in a sentence that workers are gone: each of joblib's backends has its own exceptions for it."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        is_loss = isinstance(error, (BrokenExecutor, CancelledError)) or package in ("distributed", "ray")
        if not is_loss and not (workers.backend == "dask" and isinstance(error, TimeoutError)):
            raise
        raise _loss(error, workers) from None


def _loss(error: Exception, workers: Workers) -> SpecError:
    if workers.backend == "loky":
        codes = re.search(r"exit codes of the workers are \{(.*)\}", str(error))
        ended = f" ({codes[1]})" if codes else ""
        hint = f"{_GO_ON}, with fewer --jobs if it was memory"
        message = f"a process of the search was ended from outside{ended}, as where memory runs out"
        return refusal("quanta", message, hint=hint)
    cluster = f"the {workers.backend.title()} cluster at {workers.cluster}"
    if isinstance(error, CancelledError):
        return refusal("quanta", f"{cluster} is gone", hint=f"start it again; {_GO_ON}")
    if isinstance(error, TimeoutError):
        # Joblib waits some seconds for workers that have gone meanwhile.
        return refusal("quanta", f"{cluster} has lost its workers", hint=f"{_MORE_WORKERS}; {_GO_ON}")
    lost = _first_line(error).partition(". ")[0]
    hint = f"their logs say why, and whether it was memory; {_GO_ON}"
    return refusal("quanta", f"{cluster} has lost its workers: {lost}", hint=hint)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are started meanwhile ignore Ctrl-C, even as they begin: it is this process that ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def team(workers: Workers) -> Iterator[Team]:
    """Give workers for as long as the context lasts.

    Raises:
        SpecError: the cluster is not there, or what speaks to it is not installed.

    """
    if workers.is_alone:
        yield Team(None, workers)
        return
    from joblib import Parallel, parallel_config

    with ExitStack() as stack:
        backend: Any = workers.backend
        if backend == "dask":
            backend = _dask_backend(stack.enter_context(_dask_client(workers.cluster)))
        elif backend == "ray":
            stack.enter_context(_ray(workers.cluster))
        stack.enter_context(
            parallel_config(backend=backend, n_jobs=-1 if workers.backend in CLUSTERS else workers.jobs)
        )
        returned = "list" if workers.backend == "ray" else "generator_unordered"
        # A task is a fraction of a second: one at a time, so that a time limit is kept and little is lost.
        yield Team(stack.enter_context(Parallel(return_as=returned, batch_size=1, pre_dispatch="2*n_jobs")), workers)


@contextmanager
def _dask_client(address: str | None) -> Iterator[Any]:
    from distributed import Client

    hint = "start one with `dask scheduler` and `dask worker ADDRESS`, and give its address with --cluster"
    if address is None or not address.strip():
        raise refusal("quanta", "--backend dask needs the address of a cluster", hint=hint)
    try:
        workers = _dask_workers(address)
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False) if workers else None
    except Exception as error:
        # What is no scheduler may answer anything, and Dask fails over it in as many ways.
        raise refusal("quanta", f"there is no Dask cluster at {address}: {_first_line(error)}", hint=hint) from None
    if client is None:
        raise refusal("quanta", f"the Dask cluster at {address} has no workers", hint=_MORE_WORKERS)
    # What becomes of the connection is reported here.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        with _watched(address):
            yield client
    finally:
        client.close()


def _dask_backend(client: Any) -> Any:
    """Return joblib's backend, which would wait for ever for a task that Dask gives up because its workers died."""
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Future[Any]:
            def tell(ended: Future[Any]) -> None:
                if ended.exception() is not None:
                    callback(ended)

            future: Future[Any] = super().submit(func, callback)
            future.add_done_callback(tell)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            return out.result() if isinstance(out, Future) else super().retrieve_result_callback(out)

    return Backend(client=client)


def _dask_workers(address: str) -> Collection[str]:
    """Ask a scheduler for its workers, at most five of them, before a client is made: that would wait for ever.

    Raises:
        TimeoutError: nothing there answered as a scheduler does.
        Exception: whatever Dask makes of another answer.

    """
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> Any:
        arguments = Security().get_connection_args("client")
        async with rpc(address, timeout=_CONNECT_SECONDS, connection_args=arguments) as scheduler:
            return await scheduler.identity()

    def ask_in_time() -> Any:
        return asyncio.run(asyncio.wait_for(ask(), _CONNECT_SECONDS))

    try:
        # In a thread of its own: this one may have an event loop already, as in a notebook.
        with ThreadPoolExecutor(1) as thread:
            found: Collection[str] = thread.submit(ask_in_time).result()["workers"]
    except asyncio.TimeoutError:
        raise TimeoutError(f"no scheduler answered within {_CONNECT_SECONDS} s") from None
    return found


@contextmanager
def _watched(address: str) -> Iterator[None]:
    """Warn once where the cluster has had no workers for long: tasks then wait until there are some."""
    over = threading.Event()

    def watch() -> None:
        since: float | None = None
        while not over.wait(_LONELY_SECONDS / 3):
            now = time.monotonic()
            try:
                has_workers = bool(_dask_workers(address))
            except Exception:
                has_workers = False  # A scheduler that is gone has none.
            since = None if has_workers else since or now
            if since is not None and now - since >= _LONELY_SECONDS and not over.is_set():
                message = (
                    f"the Dask cluster at {address} has had no workers for {_LONELY_SECONDS} s: tasks wait for some"
                )
                tell_diagnostics([Diagnostic("warning", message, "quanta", hint=_MORE_WORKERS)])
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise refusal("quanta", "--backend ray needs ray, which is not installed", hint="pip install ray") from None
    try:
        host, _, port = (address or "").rpartition("://")[2].rpartition(":")
        if host and port.isdigit():
            # Where nobody answers, Ray itself would wait for minutes.
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError) as error:
        hint = "start one with `ray start --head`, and give its address with --cluster"
        raise refusal("quanta", f"there is no Ray cluster at {address}: {_first_line(error)}", hint=hint) from None
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""The HTTP server: gunicorn with threads, the same for ``captionfleet api`` and ``captionfleet serve``."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]
from werkzeug.wsgi import ClosingIterator

from api.app import METERS
from api.context import EXTENSION, Context
from api.deadlines import ENVIRON, Deadlines
from api.problems import PROBLEM_TYPE, problem_body
from jobs.errors import StartupError
from jobs.ids import new_id
from jobs.metrics import BACKGROUND, WORKER
from jobs.ports import BACKLOG, open_listener, open_metrics_listener, show_metrics
from jobs.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

# A client that neither sends nor takes anything for so long loses its thread.
SILENCE_S = 60
# Longer than load balancers keep idle connections (60 s is usual), so that they never use a closed one.
KEEPALIVE_S = 75
# The event loop answers within milliseconds; start-up (schema check, model) may take longer.
HEARTBEAT_S = 120
GRACEFUL_S = 30
# What processes count together, for a scrape reaches one of them.
SHARED = (METERS.group, BACKGROUND, WORKER)


def serve(
    make_app: Callable[[], Flask],
    settings: Settings,
    *,
    workers: int,
    on_exit: Callable[[], None] | None = None,
) -> None:
    """Serve until told to stop (SIGTERM finishes running requests, SIGINT does not wait for them).

    Each worker process calls ``make_app`` after it was forked, and at its end ``on_exit``, then closes the
    application's services. Raises ``StartupError`` where the port is taken or ``make_app`` raises it.
    """
    listener = open_listener(settings.host, settings.port)
    reports, report = os.pipe()
    server = _Server(make_app, settings, workers, listener, report, on_exit)
    for meters in SHARED:
        meters.share(workers)
    parent = os.getpid()
    try:
        server.run()
    except SystemExit as end:
        if os.getpid() != parent:
            _end_child(end)
        os.close(report)
        _raise_reported(reports)
        if end.code:
            raise
    finally:
        os.close(reports)


def _end_child(end: SystemExit) -> NoReturn:
    """End a forked process here: what its parent has on the stack and at exit is not for it to run."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _raise_reported(reports: int) -> None:
    """Raise what a worker process could not start for, if any has said so."""
    text = os.read(reports, 65536)
    if text:
        code, message = json.loads(text.splitlines()[0])
        raise StartupError(code, message)


class _Master(Arbiter):  # type: ignore[misc]
    """gunicorn's parent process; a closed terminal ends it, unless it was started to outlive that (nohup)."""

    def init_signals(self) -> None:
        """Take signals, but leave an ignored SIGHUP ignored."""
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().init_signals()
        if outlives:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_hup(self) -> None:
        """End; there is no configuration file to read again."""
        self.handle_term()


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by our settings alone."""

    def __init__(
        self,
        make_app: Callable[[], Flask],
        settings: Settings,
        workers: int,
        listener: socket.socket,
        report: int,
        on_exit: Callable[[], None] | None,
    ) -> None:
        self._make_app = make_app
        self._settings = settings
        self._workers = workers
        self._listener = listener
        self._address = listener.getsockname()[:2]
        self._report = report
        self._on_exit = on_exit
        self._door: Door | None = None
        self._metrics = open_metrics_listener(settings)
        super().__init__()

    def run(self) -> None:
        """Run until told to stop."""
        _Master(self).run()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        chosen = {
            "bind": f"fd://{os.dup(self._listener.fileno())}",
            "workers": self._workers,
            "worker_class": ApiWorker,
            "threads": self._settings.api_threads,
            "timeout": HEARTBEAT_S,
            "graceful_timeout": GRACEFUL_S,
            "keepalive": KEEPALIVE_S,
            "backlog": BACKLOG,
            "logger_class": _Log,
            "loglevel": "warning",
            "control_socket_disable": True,
            "when_ready": self._let_go,
            "post_worker_init": self._tell_address,
            "worker_exit": self._leave,
            "pre_fork": self._choose_slot,
            "post_fork": self._take_slot,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Door:
        """Make the application, in the worker process."""
        try:
            self._door = Door(self._make_app())
        except StartupError as error:
            # The parent says it once, whichever of its processes finds it first.
            os.write(self._report, json.dumps([error.code, error.message[:2000]]).encode() + b"\n")
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error
        show_metrics(self._metrics, self._door.context.exposition)
        # What is there now stays: looking it through for garbage, again and again, doubled a download's time.
        gc.collect()
        gc.freeze()
        return self._door

    def _choose_slot(self, arbiter: Arbiter, worker: ApiWorker) -> None:
        """Give a process the place in shared memory of one that has ended."""
        taken = {other.slot for other in arbiter.WORKERS.values()}
        worker.slot = min(set(range(len(taken) + 1)) - taken)

    def _take_slot(self, _arbiter: Arbiter, worker: ApiWorker) -> None:
        for meters in SHARED:
            meters.take_slot(worker.slot)

    def _let_go(self, _arbiter: Arbiter) -> None:
        self._listener.close()

    def _tell_address(self, worker: ThreadWorker) -> None:
        """Say it once, from the first process that has made the application: now calls are answered."""
        if worker.age == 1:
            host, port = self._address
            log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def _leave(self, _arbiter: Arbiter, _worker: ThreadWorker) -> None:
        if self._door is None:
            return
        if self._on_exit is not None:
            self._on_exit()
        self._door.context.close()


class Door:
    """What stands between gunicorn and the application: time limits and really closed connections."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        context = app.extensions[EXTENSION]
        assert isinstance(context, Context)
        self.context = context
        self.deadlines = Deadlines(SILENCE_S)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        connection: socket.socket = environ["gunicorn.socket"]
        self.deadlines.end(connection)
        connection.settimeout(SILENCE_S)
        environ[ENVIRON] = self.deadlines

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            # gunicorn drops the application's Connection header and has its own way to say it.
            if ("Connection", "close") in headers:
                start_response.__self__.force_close()  # type: ignore[attr-defined]
            return start_response(status, headers, exc_info)

        blocks = self._app(environ, start)
        # A file is sent in blocks as well: nothing holds a client to its time in gunicorn's way to send it.
        return ClosingIterator(self.deadlines.writing(connection, blocks), getattr(blocks, "close", None))


class ApiWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker process, ending waiting requests early and refusing in our words."""

    quitting = False
    slot = 0

    def init_signals(self) -> None:
        """Take signals, but leave a closed terminal to the parent process."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle(self, conn: Any) -> Any:
        """Read and answer one request; its head must come in time."""
        deadlines: Deadlines = self.wsgi.deadlines
        deadlines.begin(conn.sock)
        try:
            return super().handle(conn)
        finally:
            deadlines.end(conn.sock)

    def notify(self) -> None:
        """Tell the parent, about once a second, that this process lives; end what clients are late with."""
        super().notify()
        if (door := getattr(self, "wsgi", None)) is not None:
            door.deadlines.shut_late()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Finish running requests, those that wait at once."""
        self._end_waits()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Leave now, once: a second signal must not break off the clean-up of the first."""
        if self.quitting:
            return
        self.quitting = True
        self._end_waits()
        # Not ThreadWorker's own: it takes the thread pool's lock, which this very thread may hold where the
        # signal met it. The pool needs no end, for the process ends.
        Worker.handle_quit(self, sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is not even HTTP, or broke before the application could answer."""
        status = _status(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a request broke outside the application", exc_info=exc)
        code = "internal_error" if status is HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"
        detail = status.description if code == "internal_error" else f"not a valid HTTP request: {exc}"
        try:
            client.sendall(_raw_problem(code, status, detail or status.phrase))
        except OSError as error:
            log.debug("a client was gone before it was refused: %s", error)

    def _end_waits(self) -> None:
        door = getattr(self, "wsgi", None)
        if door is not None:
            door.context.watch.stop()


def _status(error: BaseException) -> HTTPStatus:
    if isinstance(error, http_errors.LimitRequestLine):
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if isinstance(error, http_errors.LimitRequestHeaders):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if isinstance(error, http_errors.ParseException):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _raw_problem(code: str, status: HTTPStatus, detail: str) -> bytes:
    request_id = new_id("req")
    body = problem_body(code, status, detail, request_id).model_dump_json().encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\n\r\n"
    )
    return head.encode() + body


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's messages through our logging."""

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's own handlers away."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error, but not that a process ended which has said itself why it could not start."""
        if not _says_halt(msg, args):
            super().error(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error with its traceback; a client that took its answer too slowly is none."""
        if isinstance(sys.exc_info()[1], TimeoutError):
            super().info("a connection was closed: its client took its answer too slowly")
        else:
            super().exception(msg, *args, **kwargs)


def _says_halt(message: str, values: tuple[Any, ...]) -> bool:
    return (
        message.startswith("Shutting down")
        or values[-1:] == (Arbiter.APP_LOAD_ERROR,)
        or "App failed to load." in values
    )

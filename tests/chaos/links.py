"""The network between one host and one server, in the test's hands: it can freeze, break, forget, answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from tests.processes import reserve_port

BLOCK = 65536
# Closing a socket with this set resets its connection instead of ending it in order.
RESET = struct.pack("ii", 1, 0)


class Missed(Exception):
    """The moment a fault waited for did not come."""


class Wire:
    """One connection through a link."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.forgotten = False
        self.held: Hold | None = None
        self._pumps = 2
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Break the connection on both sides."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # Wakes the pumps, which close; nothing is sent before that.
                end.shutdown(socket.SHUT_RD)

    def leave(self) -> None:
        """Note that one direction has ended; the second to end closes."""
        with self._lock:
            self._pumps -= 1
            last = self._pumps == 0
        if last:
            self.client.close()
            self.server.close()


class Hold:
    """Keeps back the first message that completes ``patterns`` on one connection, or the answer to it."""

    def __init__(self, patterns: tuple[bytes, ...], *, answer: bool) -> None:
        self.answer = answer
        self.port = 0
        """From where the server hears the connection that was caught."""
        self._patterns = patterns
        self._progress: dict[Wire, int] = {}
        self._caught = threading.Event()
        self._over = threading.Event()
        self._deliver = True
        self._lock = threading.Lock()

    def catches(self, wire: Wire, data: bytes) -> bool:
        """Whether ``data`` completes the patterns first of all."""
        with self._lock:
            if self._caught.is_set() or self._over.is_set():
                return False
            at = self._progress.get(wire, 0)
            while at < len(self._patterns) and self._patterns[at] in data:
                at += 1
            # The patterns of one transaction do not begin in another one.
            self._progress[wire] = 0 if b"COMMIT" in data else at
            if at == len(self._patterns):
                self.port = wire.server.getsockname()[1]
                self._caught.set()
                return True
            return False

    def wait_caught(self, timeout: float = 60) -> None:
        """Wait for the moment; raise ``Missed`` where it does not come."""
        if not self._caught.wait(timeout):
            raise Missed(f"no {self._patterns} within {timeout:g} s")

    def wait_over(self) -> bool:
        """Keep the message until the test has decided; return whether it still arrives."""
        self._over.wait()
        return self._deliver

    def end(self, *, deliver: bool) -> None:
        """Let the message arrive after all, or lose it and its connection."""
        self._deliver = deliver
        self._over.set()


class Link:
    """Passes TCP connections on to a server; every trouble ends with ``mend``."""

    def __init__(self, target: int) -> None:
        self.port = reserve_port()
        self.delay_s = 0.0
        """Every request is kept back for so long."""
        self.breaks = False
        """Answers are cut off in the middle."""
        self.answers: dict[bytes, bytes] = {}
        """A request that contains the key is answered with the value."""
        self.rules: dict[bytes, bytes] = {}
        """The same, for good."""
        self._target = target
        self._holds: list[Hold] = []
        self._wires: set[Wire] = set()
        self._passing = threading.Event()
        self._passing.set()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Let nothing pass: connections stay open and nobody hears anything."""
        self._passing.clear()

    def cut(self) -> None:
        """Reset every connection; new ones work."""
        for wire in list(self._wires):
            wire.reset()

    def forget(self) -> None:
        """Lose every connection without telling either end, as a failed router does; new ones work."""
        for wire in list(self._wires):
            wire.forgotten = True

    def mend(self) -> None:
        """End every trouble, but for connections already broken."""
        self.delay_s, self.breaks, self.answers = 0.0, False, {}
        self._passing.set()

    @contextlib.contextmanager
    def hold(self, *patterns: bytes, answer: bool = False) -> Iterator[Hold]:
        """Keep back one message, or the answer to it, inside the context."""
        hold = Hold(patterns, answer=answer)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)
            hold.end(deliver=False)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(client, server)
            self._wires.add(wire)
            for pump in (self._outward, self._inward):
                threading.Thread(target=self._run, args=(pump, wire), daemon=True).start()

    def _run(self, pump: object, wire: Wire) -> None:
        assert callable(pump)
        try:
            pump(wire)
        except OSError:
            wire.reset()
        finally:
            self._wires.discard(wire)
            wire.leave()

    def _outward(self, wire: Wire) -> None:
        """Pass on what the host says."""
        while data := wire.client.recv(BLOCK):
            self._passing.wait()
            if wire.forgotten:
                continue
            if answer := self._answer(data):
                wire.client.sendall(answer)
                break
            if self.delay_s:
                threading.Event().wait(self.delay_s)
            if not self._past_holds(wire, data):
                return wire.reset()
            wire.server.sendall(data)
        if not wire.forgotten:
            wire.server.shutdown(socket.SHUT_WR)
        return None

    def _answer(self, data: bytes) -> bytes | None:
        known = self.rules | self.answers
        return next((answer for part, answer in known.items() if part in data), None)

    def _past_holds(self, wire: Wire, data: bytes) -> bool:
        """Keep a message back where a hold wants it; false when it is lost."""
        for hold in list(self._holds):
            if hold.catches(wire, data):
                if hold.answer:
                    wire.held = hold
                elif not hold.wait_over():
                    return False
        return True

    def _inward(self, wire: Wire) -> None:
        """Pass on what the server says."""
        while data := wire.server.recv(BLOCK):
            self._passing.wait()
            if wire.forgotten:
                continue
            if wire.held and not wire.held.wait_over():
                return wire.reset()
            if self.breaks:
                wire.client.sendall(data[: len(data) // 2])
                return wire.reset()
            wire.client.sendall(data)
        if not wire.forgotten:
            wire.client.shutdown(socket.SHUT_WR)
        return None

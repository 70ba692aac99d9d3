"""PostgreSQL: restarted, cut off, paused, in conflict with itself, unreachable from one host."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from tests.chaos.cluster import FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.faults.workers import CAPTION, pause
from tests.chaos.links import Missed
from tests.processes import wait_until


@dataclass(frozen=True)
class Server:
    """Something done to the PostgreSQL server."""

    name: str
    strike: Callable[[FaultyCluster, random.Random], None]

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["database"]:
            cluster.a_job()
            self.strike(cluster, rng)


def restart(cluster: FaultyCluster, rng: random.Random) -> None:
    """End the server without a checkpoint and start it again after a while."""
    cluster.postgres.kill()
    pause(rng.uniform(0, 3))
    cluster.postgres.start()


def cut(cluster: FaultyCluster, _rng: random.Random) -> None:
    """End every connection of the database, whatever it is in the middle of."""
    name = database(cluster)
    cluster.postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )


def hang(cluster: FaultyCluster, rng: random.Random) -> None:
    """Freeze every process of the server for longer than a lease."""
    server = cluster.postgres.process.pid
    os.kill(server, signal.SIGSTOP)
    backends = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    send(backends, signal.SIGSTOP)
    pause(cluster.services.settings.lease_s + rng.uniform(1, 4))
    send([*backends, server], signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes that may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def deadlock(cluster: FaultyCluster, _rng: random.Random) -> None:
    """Lock a job's row, then the chunks of a recording that waits for it: PostgreSQL ends the recording."""
    seen = logged(cluster, "deadlock detected")
    for _ in range(20):
        with session(cluster) as ours, session(cluster) as other:
            embrace(ours, other, cluster.a_job())
        if logged(cluster, "deadlock detected") > seen:
            return
    raise Missed("no recording was caught in a deadlock")


def embrace(ours: Any, other: Any, job_id: str) -> None:
    """Take the locks of a recording in the opposite order; patient, so that the other one is ended."""
    ours.execute("SET deadlock_timeout = '30s'")
    ours.execute("BEGIN")
    ours.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", [job_id])
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    with contextlib.suppress(AssertionError):
        wait_until(lambda: other.execute(waiting, [ours.info.backend_pid]).fetchone()[0], 5)
        ours.execute("SELECT 1 FROM chunks WHERE job_id = %s AND state = 'leased' FOR UPDATE", [job_id])
    ours.execute("ROLLBACK")


def serialization(cluster: FaultyCluster, rng: random.Random) -> None:
    """Run the database at the strictest isolation for a while: transactions that meet are refused."""
    name = database(cluster)
    setting = f"ALTER DATABASE {name} SET default_transaction_isolation TO"
    seen = logged(cluster, "could not serialize access")
    cluster.postgres.execute(f"{setting} 'serializable'")
    cut(cluster, rng)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: logged(cluster, "could not serialize access") > seen + 3, 20)
    cluster.postgres.execute(f"{setting} DEFAULT")
    cut(cluster, rng)
    if logged(cluster, "could not serialize access") == seen:
        raise Missed("no transaction was refused")


def database(cluster: FaultyCluster) -> str:
    """Return the database's name."""
    return str(make_url(cluster.environment["DATABASE_URL"]).database)


def logged(cluster: FaultyCluster, words: str) -> int:
    """Return how often the server has said something."""
    return cluster.postgres.process.output.count(words)


@contextlib.contextmanager
def session(cluster: FaultyCluster) -> Iterator[Any]:
    """Open a session of the test's own."""
    import psycopg

    with psycopg.connect(cluster.environment["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@dataclass(frozen=True)
class CutOff:
    """One host loses its way to the database: its connections break, or stand still past its lease."""

    name: str
    stands_still: bool

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            if self.stands_still:
                host.links.database.freeze()
                pause(cluster.services.settings.lease_s + rng.uniform(2, 5))
                host.links.database.mend()
            else:
                host.links.database.cut()


class CommitUnheard:
    """The connection breaks between a recording's COMMIT and its answer: did it happen or not?"""

    name = "answer to COMMIT lost"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            link = host.links.database
            with link.hold(CAPTION, b"COMMIT", answer=rng.random() < 0.7) as hold:
                hold.wait_caught()
                hold.end(deliver=False)


FAULTS: list[Fault] = [
    Server("PostgreSQL restarted", restart),
    Server("PostgreSQL connections cut", cut),
    Server("PostgreSQL paused", hang),
    Server("PostgreSQL deadlock", deadlock),
    Server("PostgreSQL serialization errors", serialization),
    CutOff("host's PostgreSQL connections reset", stands_still=False),
    CutOff("host cut off past its lease", stands_still=True),
    CommitUnheard(),
]

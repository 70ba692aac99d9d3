"""The receiver in examples/ takes what the product sends, once, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from jobs.settings import Settings
from jobs.store import Store
from jobs.store.database import open_database
from jobs.store.schema import upgrade
from jobs.urls import UrlGuard
from jobs.webhooks import WebhookSender
from tests.contract.stores import run_to_end
from tests.contract.test_webhooks import delivered, hooked_job, make_due
from tests.processes import Process, reserve_port, scratch_folder, wait_until

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_receiver_takes_events_once_and_refuses_forgeries(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path))
    upgrade(database)
    store = Store(database, retention_days=1)
    port, log = reserve_port(), scratch_folder("receiver") / "log"
    url = f"http://127.0.0.1:{port}/"
    secret = store.webhooks.secrets("ann")[0].secret
    receiver = Process(
        [sys.executable, ROOT / "examples/webhook_receiver.py", str(port)],
        environment={"WEBHOOK_SECRET": secret},
        log=log,
    )
    receiver.start(lambda: _refuses(url))
    sender = WebhookSender(store.webhooks, UrlGuard(["127.0.0.1"]))
    try:
        store.webhooks.rotate("ann")
        job_id = hooked_job(store, url)
        run_to_end(store, job_id)
        (delivery,) = delivered(store, sender)
        assert delivery.attempts[0].http_status == 204
        store.webhooks.retry("ann", delivery.id)
        make_due(store)
        wait_until(lambda: len(delivered(store, sender)[0].attempts) == 2, what="the second delivery")
        assert log.read_text() == f"job.completed {job_id} 2 captions\n"
    finally:
        sender.stop()
        receiver.stop()
        store.close()


def _refuses(url: str) -> bool:
    """Whether it answers, and refuses what is not signed."""
    try:
        forged = httpx.post(url, content=b"{}", headers={"webhook-signature": "v1,AAAA v1,%"}, timeout=2)
    except httpx.TransportError:
        return False
    assert forged.status_code == 401
    return True

"""Webhooks over both databases: the outbox in the job's own transaction, signatures, tries, rotation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from sqlalchemy import func, select, update

from jobs.errors import ItemCode, ItemError
from jobs.events import Delivery
from jobs.ids import new_id
from jobs.records import JobSpec
from jobs.store import Store
from jobs.store.chunks import Claim, Progress, advance_job, close_chunk
from jobs.store.submit import NewItem, NewJob
from jobs.tables import DeliveryRow, WebhookSecretRow
from jobs.urls import UrlGuard
from jobs.webhooks import AT_ONCE_PER_OWNER, PAUSES_S, TIMEOUT_S, WebhookSender, signature
from tests.contract.stores import captioned, claim, run_to_end, store
from tests.processes import wait_until
from tests.web import Came, Web, answer, serving

__all__ = ["store"]

LONG_AGO = datetime.now(UTC) - timedelta(days=1)
TRUSTING = UrlGuard(["127.0.0.1"])


@pytest.fixture
def receiver() -> Iterator[Web]:
    """A receiver that takes everything."""
    with serving(lambda handler, came: answer(handler, 204)) as web:
        yield web


@pytest.fixture
def sender(store: Store) -> Iterator[WebhookSender]:
    """One process's sender, which may call this machine."""
    made = WebhookSender(store.webhooks, TRUSTING)
    yield made
    made.stop()
    wait_until(lambda: not made._sending, what="the last try's end")


def hooked_job(store: Store, url: str, images: int = 2, owner: str = "ann", broken: bool = False) -> str:
    """Insert a job with a webhook; broken ones have images that failed already."""
    job_id = new_id("job")
    error = ItemError(ItemCode.IMAGE_TOO_LARGE, "too large") if broken else None
    items = [NewItem(f"{n}.jpg", f"{n}.jpg", "upload", f"k/{n}", error=error) for n in range(images)]
    spec = JobSpec(webhook_url=url, metadata={"album": "Sömmer"})
    store.submit.insert_job(NewJob(job_id, owner, "small", "upload", spec), items)
    return job_id


def deliveries(store: Store, owner: str = "ann") -> list[Delivery]:
    return store.webhooks.page(owner, None, None, 100, None)[0]


def delivered(store: Store, sender: WebhookSender, count: int = 1) -> list[Delivery]:
    """Send until so many are delivered."""

    def done() -> list[Delivery]:
        sender.send_due()
        found = deliveries(store)
        return found if sum(one.status == "delivered" for one in found) == count else []

    return wait_until(done, what=f"{count} deliveries")


def tried(store: Store, sender: WebhookSender, attempts: int = 1) -> Delivery:
    """Send what is due until the one delivery has so many tries behind it."""
    sender.send_due()

    def done() -> Delivery | None:
        found = deliveries(store)[0]
        return found if len(found.attempts) >= attempts else None

    return wait_until(done, what=f"{attempts} tries")


def make_due(store: Store) -> None:
    """Let every pause be over."""
    with store.database.write() as connection:
        connection.execute(
            update(DeliveryRow).where(DeliveryRow.next_at.is_not(None)).values(next_at=LONG_AGO)
        )


def verified(came: Came, secret: str) -> bool:
    """Whether a receiver that knows ``secret`` accepts the request, by the letter of the specification."""
    headers = {name.lower(): value for name, value in came.headers.items()}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), came.body])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 60
    return fresh and f"v1,{expected}" in headers["webhook-signature"].split(" ")


def test_the_end_of_a_job_is_told_once_and_signed(store: Store, sender: WebhookSender, receiver: Web) -> None:
    job_id = hooked_job(store, receiver.url("/hook?token=1"))
    assert deliveries(store) == []
    run_to_end(store, job_id)
    (delivery,) = delivered(store, sender)
    (came,) = receiver.came
    said = json.loads(came.body)
    assert (said["type"], said["data"]["id"], said["data"]["status"]) == (
        "job.completed",
        job_id,
        "completed",
    )
    assert said["data"]["counts"]["succeeded"] == 2
    assert said["data"]["metadata"] == {"album": "Sömmer"}
    assert said["timestamp"] == said["data"]["finished_at"]
    assert came.path == "/hook?token=1"
    assert came.headers["webhook-id"] == delivery.id
    assert verified(came, store.webhooks.secrets("ann")[0].secret)
    assert not verified(came, store.webhooks.secrets("bob")[0].secret)
    assert [attempt.http_status for attempt in delivery.attempts] == [204]
    make_due(store)
    sender.send_due()
    assert len(receiver.came) == 1


@pytest.mark.parametrize("ending", ["canceled", "completed"])
def test_every_way_to_end_is_told(store: Store, ending: str) -> None:
    job_id = hooked_job(store, "https://example.com/", broken=ending == "completed")
    if ending == "canceled":
        store.jobs.cancel("ann", job_id)
        assert deliveries(store) == []
        while store.sweeps.finish_cancels():
            pass
    assert [one.type for one in deliveries(store)] == [f"job.{ending}"]


def test_an_event_is_there_exactly_if_its_job_ended(store: Store) -> None:
    """The transaction that ends the job fails after the event was written: neither of the two happened."""
    job_id = hooked_job(store, "https://example.com/")
    held = claim(store, job_id, 0)
    with pytest.raises(ZeroDivisionError):
        _record_and_break(store, held)
    assert deliveries(store) == []
    assert store.chunks.record([captioned(held)]).closed
    assert len(deliveries(store)) == 1


def _record_and_break(store: Store, held: Claim) -> None:
    with store.database.write() as connection:
        close_chunk(connection, held)
        advance_job(connection, store.database, held.job_id, Progress(closed=1, succeeded=2), 60)
        assert connection.execute(select(func.count()).select_from(DeliveryRow)).scalar() == 1
        raise ZeroDivisionError


def test_a_retry_tells_the_end_again_under_a_new_id(store: Store) -> None:
    job_id = hooked_job(store, "https://example.com/")
    store.jobs.cancel("ann", job_id)
    while store.sweeps.finish_cancels():
        pass
    store.jobs.retry("ann", job_id)
    for chunk in (0, 1):
        taken = store.chunks.claim(job_id, chunk, "w", 30, 2)
        if taken:
            store.chunks.record([captioned(taken)])
    assert [one.type for one in deliveries(store)] == ["job.completed", "job.canceled"]
    assert len({one.id for one in deliveries(store)}) == 2


def test_a_receiver_that_fails_is_tried_again_with_the_same_bytes(
    store: Store, sender: WebhookSender, receiver: Web
) -> None:
    statuses = iter([500, 302, 503])
    receiver.answering = lambda handler, came: answer(handler, next(statuses, 200), Location="/else")
    run_to_end(store, hooked_job(store, receiver.url()))
    for number, status in enumerate((500, 302, 503), start=1):
        delivery = tried(store, sender, number)
        assert (delivery.status, delivery.attempts[-1].http_status) == ("pending", status)
        pause = delivery.next_attempt_at.timestamp() - time.time()
        assert 0.7 * PAUSES_S[number - 1] - 3 < pause < 1.3 * PAUSES_S[number - 1]
        make_due(store)
    delivered(store, sender)
    assert len({(came.headers["webhook-id"], came.body, came.path) for came in receiver.came}) == 1
    assert len(receiver.came) == 4


def test_after_a_day_it_is_given_up_and_can_be_sent_again_by_hand(
    store: Store, sender: WebhookSender, receiver: Web
) -> None:
    assert 0.9 < sum(PAUSES_S) / 86400 < 1.1
    receiver.answering = lambda handler, came: answer(handler, 500)
    run_to_end(store, hooked_job(store, receiver.url()))
    with store.database.write() as connection:
        connection.execute(update(DeliveryRow).values(attempts=len(PAUSES_S)))
    delivery = tried(store, sender)
    assert (delivery.status, delivery.next_attempt_at) == ("failed", None)
    receiver.answering = lambda handler, came: answer(handler, 200)
    assert store.webhooks.retry("ann", delivery.id).status == "pending"
    assert delivered(store, sender)[0].id == delivery.id


@pytest.mark.parametrize(("url", "error"), [("http://10.0.0.1/", "url_forbidden"), ("", "410")])
def test_what_cannot_get_better_is_not_tried_again(
    store: Store, sender: WebhookSender, receiver: Web, url: str, error: str
) -> None:
    receiver.answering = lambda handler, came: answer(handler, 410)
    run_to_end(store, hooked_job(store, url or receiver.url()))
    delivery = tried(store, sender)
    (attempt,) = delivery.attempts
    assert delivery.status == "failed"
    assert error in str(attempt.http_status) + str(attempt.error)


def test_a_sender_that_dies_loses_nothing(store: Store, sender: WebhookSender, receiver: Web) -> None:
    run_to_end(store, hooked_job(store, receiver.url()))
    taken = store.webhooks.take(60, ())
    assert taken is not None
    assert store.webhooks.take(60, ()) is None, "it is being sent"
    make_due(store)
    assert delivered(store, sender)[0].id == taken.id


def test_a_receiver_that_hangs_does_not_hold_up_other_owners(
    store: Store, sender: WebhookSender, receiver: Web
) -> None:
    hang = threading.Event()

    def answering(handler: BaseHTTPRequestHandler, came: Came) -> None:
        if came.path == "/hangs":
            hang.wait(30)
        answer(handler, 200)

    receiver.answering = answering
    for _ in range(3 * AT_ONCE_PER_OWNER):
        run_to_end(store, hooked_job(store, receiver.url("/hangs"), owner="bob"), owner="bob")
    run_to_end(store, hooked_job(store, receiver.url("/good")))
    began = time.monotonic()
    delivered(store, sender)
    assert time.monotonic() - began < TIMEOUT_S - 5
    assert sum(came.path == "/hangs" for came in receiver.came) <= AT_ONCE_PER_OWNER
    hang.set()


def test_a_replaced_secret_signs_along_for_a_day(store: Store, sender: WebhookSender, receiver: Web) -> None:
    (old,) = store.webhooks.secrets("ann")
    new, still = store.webhooks.rotate("ann")
    assert still.secret == old.secret
    assert still.expires_at is not None
    run_to_end(store, hooked_job(store, receiver.url()))
    delivered(store, sender)
    assert verified(receiver.came[0], old.secret)
    assert verified(receiver.came[0], new.secret)
    with store.database.write() as connection:
        expired = update(WebhookSecretRow).where(WebhookSecretRow.expires_at.is_not(None))
        connection.execute(expired.values(expires_at=LONG_AGO))
    run_to_end(store, hooked_job(store, receiver.url()))
    delivered(store, sender, 2)
    assert not verified(receiver.came[1], old.secret)
    assert verified(receiver.came[1], new.secret)


def test_deliveries_go_with_their_job_and_are_the_owners_own(store: Store) -> None:
    job_id = hooked_job(store, "https://example.com/")
    run_to_end(store, job_id)
    assert deliveries(store, "bob") == []
    store.jobs.delete("ann", job_id)
    while store.retention.delete_rows(job_id):
        pass
    assert deliveries(store) == []


def test_the_signature_is_the_specifications_own_example() -> None:
    """The test vector of the Standard Webhooks libraries."""
    body = '{"test": 2432232314}'
    found = signature(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

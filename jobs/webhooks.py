"""Sending webhooks: signed by the Standard Webhooks scheme, again and again for a day until they are taken.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from jobs.errors import DatabaseUnavailable, ItemCode
from jobs.events import DeliveryAttempt, DeliveryStatus
from jobs.metrics import WEBHOOK_TRIES
from jobs.store.webhooks import Due, WebhookStore
from jobs.urls import Reply, UrlError, UrlGuard

log = logging.getLogger(__name__)

TIMEOUT_S = 15.0
# Longer than a try can take, name server and all, so that nobody repeats one that is still under way.
LEASE_S = 120.0
# Pauses after each failed try: together a day.
PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
JITTER = 0.2
AT_ONCE = 8
# Of one owner at a time, so that a receiver that hangs does not hold up everybody's.
AT_ONCE_PER_OWNER = 3
ANSWER_BYTES = 1024
GONE = 410


def signature(secrets: Sequence[str], event: str, timestamp: int, body: str) -> str:
    """Return the ``webhook-signature`` of one try: a signature by each secret, separated by spaces."""
    signed = f"{event}.{timestamp}.{body}".encode()
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


class WebhookSender:
    """Sends what is due in a few threads, which live only as long as there is something to send."""

    def __init__(self, store: WebhookStore, urls: UrlGuard) -> None:
        self._store = store
        self._urls = urls
        self._lock = threading.Lock()
        self._sending: Counter[str] = Counter()
        self._stopped = False

    def send_due(self) -> None:
        """Begin to send what is due; returns at once."""
        while self._sending.total() < AT_ONCE and (due := self._take()) is not None:
            threading.Thread(target=self._run, args=(due,), name="webhook", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more; what is cut off by the process's end is sent again by another one."""
        with self._lock:
            self._stopped = True

    def _take(self) -> Due | None:
        with self._lock:
            if self._stopped:
                return None
            busy = [owner for owner, count in self._sending.items() if count >= AT_ONCE_PER_OWNER]
            due = self._store.take(LEASE_S, busy)
            if due is not None:
                self._sending[due.owner] += 1
            return due

    def _run(self, first: Due) -> None:
        due: Due | None = first
        while due is not None:
            try:
                self._send(due)
            except DatabaseUnavailable as error:
                log.warning("the webhook %s will be sent again: %s", due.id, error)
            except Exception:
                # Its lease ends, and another try tells; the other webhooks must go out.
                log.exception("the webhook %s failed and will be sent again", due.id)
            finally:
                self._done(due)
            due = self._next()

    def _next(self) -> Due | None:
        try:
            return self._take()
        except DatabaseUnavailable as error:
            log.warning("webhooks wait: %s", error)
            return None

    def _done(self, due: Due) -> None:
        with self._lock:
            self._sending[due.owner] -= 1
            self._sending += Counter()

    def _send(self, due: Due) -> None:
        began = datetime.now(UTC)
        try:
            reply = self._post(due)
        except UrlError as error:
            attempt = _attempt(began, None, f"{error.message} ({error.code})")
            self._settle(due, attempt, final=error.code == ItemCode.URL_FORBIDDEN)
            return
        taken = 200 <= reply.status < 300
        attempt = _attempt(began, reply.status, None if taken else "the receiver did not take it")
        if taken:
            self._store.settle(due, attempt, DeliveryStatus.DELIVERED, None)
            WEBHOOK_TRIES.add(1, "delivered")
        else:
            self._settle(due, attempt, final=reply.status == GONE)

    def _post(self, due: Due) -> Reply:
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": due.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(due.secrets, due.id, timestamp, due.body),
        }
        return self._urls.post(due.url, due.body.encode(), headers, TIMEOUT_S, ANSWER_BYTES)

    def _settle(self, due: Due, attempt: DeliveryAttempt, *, final: bool) -> None:
        """Say when a failed try is repeated, or that it was the last one."""
        if final or due.attempt > len(PAUSES_S):
            log.warning("the webhook %s of %s was given up: %s", due.id, due.owner, attempt.error)
            self._store.settle(due, attempt, DeliveryStatus.FAILED, None)
            WEBHOOK_TRIES.add(1, "failed")
            return
        pause = PAUSES_S[due.attempt - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        self._store.settle(due, attempt, DeliveryStatus.PENDING, pause)
        WEBHOOK_TRIES.add(1, "postponed")


def _attempt(began: datetime, status: int | None, error: str | None) -> DeliveryAttempt:
    seconds = (datetime.now(UTC) - began).total_seconds()
    return DeliveryAttempt(at=began, seconds=round(seconds, 3), http_status=status, error=error)

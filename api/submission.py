"""Making a job of a request: reserve its key, receive it, hand it to intake; leave nothing when it fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from api.allowance import Allowance
from api.context import Context
from api.routes import Call
from jobs.errors import CaptionfleetError, RequestError
from jobs.ids import new_id
from jobs.lists import ItemList
from jobs.logs import note_ids
from jobs.objects import job_prefix
from jobs.records import JobSpec
from jobs.store.submit import NewExpansion, NewJob, Reservation

log = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass
class Received:
    """A request that has been read to its end."""

    spec: JobSpec
    source: str
    items: ItemList
    fingerprint: str
    # What is to be expanded in the background, instead of items.
    rest: NewExpansion | None = None


class Receiver(Protocol):
    """Reads one kind of request."""

    @property
    def stores(self) -> bool:
        """Whether it puts images into the object store."""
        ...

    def receive(self, job_id: str | None) -> Received:
        """Read the request for a new job, or only its fingerprint (``None``); raise ``RequestError``."""
        ...


def idempotency_key(header: str | None) -> str | None:
    """Return a valid Idempotency-Key; raise ``RequestError`` invalid_request."""
    if header is not None and not _KEY.fullmatch(header):
        raise RequestError("invalid_request", "Idempotency-Key takes 1 to 255 visible ASCII characters")
    return header


def make_job(call: Call[Any], key: str | None, receiver: Receiver, allowed: Allowance) -> str:
    """Return the id of the job that this request made, or made before under the same key."""
    job_id, owner, context = new_id("job"), call.owner, call.context
    if key is None:
        return _make(call, NewJobOf(owner, job_id, None), receiver, allowed)
    submit = context.services.store.submit
    reservation = submit.reserve(owner, key, job_id)
    if not reservation.mine:
        return _repeat(context, reservation, receiver)
    try:
        return _make(call, NewJobOf(owner, job_id, key), receiver, allowed)
    except BaseException:
        _release(context, owner, key, job_id)
        raise


@dataclass(frozen=True)
class NewJobOf:
    """Whose job it will be, its id and its key."""

    owner: str
    id: str
    key: str | None


def _make(call: Call[Any], new: NewJobOf, receiver: Receiver, allowed: Allowance) -> str:
    note_ids(job=new.id)
    context = call.context
    allowed.check_start(call.body, stores=receiver.stores)
    with context.heartbeats.of(new.id):
        received = _receive(context, new, receiver)
        try:
            model = context.services.intake.check(received.spec)
            context.services.intake.check_output(new.id, new.owner, received.spec)
            fingerprint = received.fingerprint if new.key else None
            size = call.body.received if receiver.stores else 0
            job = NewJob(
                new.id,
                new.owner,
                model,
                received.source,
                received.spec,
                new.key,
                fingerprint,
                allowed.limits,
                size,
            )
            if received.rest is None:
                context.services.intake.submit(job, received.items)
            else:
                context.services.intake.prepare(job, received.rest)
        except RequestError:
            # Nothing was committed. After any other error that is not sure, so the sweep has to find out.
            _discard(context, new.id, receiver)
            raise
        finally:
            received.items.close()
    return new.id


def _receive(context: Context, new: NewJobOf, receiver: Receiver) -> Received:
    if not receiver.stores:
        return receiver.receive(new.id)
    submit = context.services.store.submit
    submit.begin_upload(new.owner, new.id)
    try:
        received = receiver.receive(new.id)
        if not submit.heartbeat(new.id):
            message = "the upload was silent for so long that what had arrived of it was removed"
            raise RequestError("upload_incomplete", message)
    except BaseException:
        _discard(context, new.id, receiver)
        raise
    return received


def _repeat(context: Context, reservation: Reservation, receiver: Receiver) -> str:
    """Compare a repeated request, without storing it, with the one that made the job."""
    received = receiver.receive(None)
    received.items.close()
    if received.fingerprint != reservation.fingerprint:
        message = "this Idempotency-Key was used for a different request"
        raise RequestError("idempotency_conflict", message)
    if reservation.job_id not in context.services.store.jobs.versions([reservation.job_id]):
        raise RequestError("idempotency_conflict", "the job of this Idempotency-Key has been deleted")
    return reservation.job_id


def _discard(context: Context, job_id: str, receiver: Receiver) -> None:
    """Remove what a failed request stored; where that fails too, the sweep does it later."""
    if not receiver.stores:
        return
    with _left_to_the_sweep(job_id):
        context.services.objects.delete_prefix(job_prefix(job_id))
        context.services.store.submit.forget_upload(job_id)


def _release(context: Context, owner: str, key: str, job_id: str) -> None:
    with _left_to_the_sweep(job_id):
        context.services.store.submit.release_reservation(owner, key, job_id)


@contextmanager
def _left_to_the_sweep(job_id: str) -> Iterator[None]:
    try:
        yield
    except CaptionfleetError as error:
        log.warning("what the failed request %s left will be removed later: %s", job_id, error)

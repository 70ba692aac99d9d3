"""Event notifications of S3 as they lie in a queue: which objects a message says were created.

Three envelopes: S3's own records (Amazon S3 User Guide, "Event message structure"), the same wrapped by
SNS, and EventBridge's events, which name keys as they are while the others encode them like a form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import orjson

KEY_BYTES = 1024
WORD_LENGTH = 1024
# An EventBridge event or a record may come by way of SNS; nothing wraps twice.
DEEPEST = 2


class Created(NamedTuple):
    """One object that was created; what is empty was not said."""

    bucket: str
    key: str
    version: str = ""
    etag: str = ""
    sequencer: str = ""

    @property
    def digest(self) -> str:
        """What is the same in every delivery of this event, and in no other event."""
        said = [self.bucket, self.key, self.version or self.etag, self.sequencer]
        return hashlib.sha256(orjson.dumps(said)).hexdigest()


@dataclass
class Reading:
    """What a message says; its records are read one by one, so one bad record spoils no other."""

    created: list[Created] = field(default_factory=list)
    others: int = 0
    """Records of what is no creation, test events included."""
    faults: list[str] = field(default_factory=list)
    """What could not be read, and why."""


class _Malformed(Exception):
    """Something that S3 does not send."""


def read(body: str) -> Reading:
    """Return what a message says; nothing that it holds raises."""
    reading = Reading()
    try:
        _read(body, reading, DEEPEST)
    except _Malformed as error:
        reading.faults.append(str(error))
    return reading


def _read(body: str, reading: Reading, depth: int) -> None:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _Malformed(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise _Malformed("not a JSON object")
    if isinstance(message.get("Records"), list):
        for record in message["Records"]:
            _one(reading, _record, record)
    elif message.get("Event") == "s3:TestEvent":
        reading.others += 1
    elif "detail-type" in message:
        _one(reading, _bridge_event, message)
    elif isinstance(message.get("TopicArn"), str):
        _read(_wrapped(message, depth), reading, depth - 1)
    else:
        raise _Malformed("neither an S3 event, nor one from SNS or EventBridge")


def _wrapped(message: Mapping[str, Any], depth: int) -> str:
    """Return what SNS wraps."""
    kind, inner = message.get("Type"), message.get("Message")
    if kind != "Notification":
        raise _Malformed(f"an SNS message of the type {str(kind)[:40]}; confirm subscriptions yourself")
    if not isinstance(inner, str) or depth < DEEPEST:
        raise _Malformed("an SNS notification without a message of S3")
    return inner


def _one(reading: Reading, read_one: Callable[[Any], Created | None], record: Any) -> None:
    try:
        created = read_one(record)
    except _Malformed as error:
        reading.faults.append(str(error))
        return
    if created is None:
        reading.others += 1
    else:
        reading.created.append(created)


def _record(record: Any) -> Created | None:
    """Return the object of one of S3's records; ``None`` where it was not created."""
    name = _text(_part(record, "an S3 record"), "eventName")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    s3 = _part(record.get("s3"), "s3 of a record")
    bucket, thing = _part(s3.get("bucket"), "s3.bucket"), _part(s3.get("object"), "s3.object")
    return Created(
        _text(bucket, "name"),
        _key(_decoded(_text(thing, "key"))),
        _word(thing, "versionId"),
        _word(thing, "eTag"),
        _word(thing, "sequencer"),
    )


def _bridge_event(event: Mapping[str, Any]) -> Created | None:
    """Return the object of an EventBridge event; ``None`` where it was not created."""
    if event.get("source") != "aws.s3" or event["detail-type"] != "Object Created":
        return None
    detail = _part(event.get("detail"), "detail")
    bucket, thing = _part(detail.get("bucket"), "detail.bucket"), _part(detail.get("object"), "detail.object")
    return Created(
        _text(bucket, "name"),
        _key(_text(thing, "key")),
        _word(thing, "version-id"),
        _word(thing, "etag"),
        _word(thing, "sequencer"),
    )


def _part(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Malformed(f"{name} is not an object")
    return value


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if not isinstance(value, str) or not value or len(value) > 3 * KEY_BYTES:
        raise _Malformed(f"{name} is missing or not a text")
    return value


def _word(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > WORD_LENGTH:
        raise _Malformed(f"{name} is not a text")
    # Buckets that never had versions say "null" in some forms and nothing in others.
    return "" if value == "null" else value.strip('"')


def _decoded(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise _Malformed("key is not UTF-8") from error


def _key(key: str) -> str:
    if len(key.encode()) > KEY_BYTES or "\0" in key:
        raise _Malformed("key is no key of S3")
    return key

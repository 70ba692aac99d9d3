"""Queues of event notifications in SQS: receiving, deleting and passing on."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from jobs.errors import BrokerUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

# What SQS takes and gives at once.
AT_ONCE = 10
AWS = ".amazonaws.com"
REASON = "captionfleet-reason"
REASON_LENGTH = 500


class Received(NamedTuple):
    """A message that is ours until it is deleted or its visibility time has passed."""

    id: str
    body: str
    receipt: str
    sent_at_ms: int
    reason: str | None = None
    """Why it is a dead letter, if this service made it one."""


class Sqs:
    """One boto3 client, made when first used; boto3 reads credentials and endpoint itself."""

    def __init__(self, queue_url: str) -> None:
        """Serve the queues that lie where ``queue_url`` says, if boto3's own settings say nothing else."""
        self._queue_url = queue_url
        self._lock = threading.Lock()
        self._client: SQSClient | None = None

    def receive(self, url: str, wait_s: int) -> list[Received]:
        """Return up to ten messages, as soon as there are any; none after ``wait_s`` seconds."""
        with _translated():
            answer = self._connected().receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=AT_ONCE,
                WaitTimeSeconds=wait_s,
                MessageAttributeNames=[REASON],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        return [
            Received(
                message["MessageId"],
                message["Body"],
                message["ReceiptHandle"],
                int(message.get("Attributes", {}).get("SentTimestamp", 0)),
                _reason(message.get("MessageAttributes", {})),
            )
            for message in answer.get("Messages", ())
        ]

    def delete(self, url: str, messages: Sequence[Received]) -> None:
        """Delete messages; one that was deleted already is no error."""
        for start in range(0, len(messages), AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt}
                for number, message in enumerate(messages[start : start + AT_ONCE])
            ]
            with _translated():
                answer = self._connected().delete_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
            if answer.get("Failed"):
                raise BrokerUnavailable(f"SQS did not delete messages: {answer['Failed'][0]}")

    def send(self, url: str, body: str, reason: str | None = None) -> None:
        """Send a message, with the reason why it is a dead letter."""
        text = {"DataType": "String", "StringValue": _plain(reason)} if reason else None
        with _translated():
            self._connected().send_message(
                QueueUrl=url,
                MessageBody=body,
                MessageAttributes={REASON: text} if text else {},  # type: ignore[dict-item]
            )

    def dead_letter_url(self, url: str) -> str | None:
        """Return the queue that SQS itself moves a queue's messages to after too many receives."""
        with _translated():
            client = self._connected()
            answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
            policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
            if "deadLetterTargetArn" not in policy:
                return None
            _, _, _, _, account, name = policy["deadLetterTargetArn"].split(":")
            return client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]

    def _connected(self) -> SQSClient:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._queue_url)
            return self._client


def _reason(attributes: Mapping[str, Any]) -> str | None:
    said: Mapping[str, str] = attributes.get(REASON, {})
    return said.get("StringValue")


def queue_region(url: str) -> str | None:
    """Return the region of AWS that a queue's address names."""
    found = re.match(r"https://(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.(?:queue\.)?amazonaws\.com", url)
    return found[1] if found else None


def _connect(queue_url: str) -> SQSClient:
    import boto3
    from botocore.config import Config

    # Reading outlasts the longest poll; messages are repeated by SQS, so a few tries are enough here.
    retries = {"mode": "standard", "total_max_attempts": 3}
    config = Config(connect_timeout=5, read_timeout=30, retries=retries)  # type: ignore[arg-type]
    session = boto3.Session()
    region = queue_region(queue_url) or session.region_name or "us-east-1"
    client = session.client("sqs", region_name=region, config=config)
    parts = urlsplit(queue_url)
    if AWS in client.meta.endpoint_url and AWS not in parts.netloc:
        # Another server than AWS; its address is in the queue's.
        endpoint = f"{parts.scheme}://{parts.netloc}"
        client = session.client("sqs", region_name=region, config=config, endpoint_url=endpoint)
    return client


def _plain(reason: str) -> str:
    """Return a reason without what SQS refuses in attributes."""
    return re.sub(r"[^\x20-\ud7ff\ue000-\ufffd]", "?", reason)[:REASON_LENGTH]


@contextmanager
def _translated() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise BrokerUnavailable(f"SQS refuses: {error}") from error
    except (BotoCoreError, OSError) as error:
        raise BrokerUnavailable(f"SQS does not answer: {error}") from error

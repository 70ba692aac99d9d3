"""Reading event notifications: the examples of AWS, what moto cannot send, and anything at all."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.notifications import Created, read

# Amazon S3 User Guide, "Event message structure" and its examples; identifiers shortened.
RECORD: dict[str, Any] = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQp"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {
            "name": "amzn-s3-demo-bucket",
            "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
            "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
        },
        "object": {
            "key": "HappyFace.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
DIRECT = json.dumps({"Records": [RECORD]})
# "Amazon S3 sends a test message" of the same guide.
TEST_EVENT = json.dumps(
    {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2014-10-13T15:57:02.089Z",
        "Bucket": "amzn-s3-demo-bucket",
        "RequestId": "5582815E1AEA5ADF",
        "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
    }
)
# Amazon S3 User Guide, "EventBridge event message structure"; the key is one that the other form encodes.
BRIDGE: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
    "detail": {
        "version": "0",
        "bucket": {"name": "amzn-s3-demo-bucket1"},
        "object": {
            "key": "in/a+b%20c é.jpg",
            "size": 5,
            "etag": "b1946ac92492d2347c6235b4d2611184",
            "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
            "sequencer": "617f08299329d189",
        },
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "source-ip-address": "1.2.3.4",
        "reason": "PutObject",
    },
}


def by_sns(message: str, kind: str = "Notification") -> str:
    """Wrap a message as the SNS Developer Guide's "HTTP/HTTPS notification JSON format" does."""
    return json.dumps(
        {
            "Type": kind,
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2012-05-02T00:54:06.655Z",
            "SignatureVersion": "1",
            "Signature": "EXAMPLEw6JRN",
            "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe",
        }
    )


def record(name: str = "ObjectCreated:Put", bucket: Any = "b", **thing: Any) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": thing}}


def records(*given: Any) -> str:
    return json.dumps({"Records": given})


HAPPY = Created(
    "amzn-s3-demo-bucket",
    "HappyFace.jpg",
    "096fKKXTRTtl3on89fVO.nfljtsv6qko",
    "d41d8cd98f00b204e9800998ecf8427e",
    "0055AED6DCD90281E5",
)
BRIDGED = Created(
    "amzn-s3-demo-bucket1",
    "in/a+b%20c é.jpg",
    "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
    "b1946ac92492d2347c6235b4d2611184",
    "617f08299329d189",
)


@pytest.mark.parametrize(
    ("body", "created"),
    [
        (DIRECT, HAPPY),
        (by_sns(DIRECT), HAPPY),
        (json.dumps(BRIDGE), BRIDGED),
        (by_sns(json.dumps(BRIDGE)), BRIDGED),
    ],
    ids=["direct", "sns", "eventbridge", "eventbridge by sns"],
)
def test_every_envelope_is_read(body: str, created: Created) -> None:
    reading = read(body)
    assert (reading.created, reading.others, reading.faults) == ([created], 0, [])


@pytest.mark.parametrize(
    "body",
    [
        TEST_EVENT,
        by_sns(TEST_EVENT),
        records(record("ObjectRemoved:Delete", key="a.jpg")),
        records(record("ObjectRestore:Completed", key="a.jpg")),
        json.dumps({**BRIDGE, "detail-type": "Object Deleted"}),
        json.dumps({**BRIDGE, "source": "aws.ec2"}),
    ],
)
def test_what_creates_nothing_is_counted(body: str) -> None:
    reading = read(body)
    assert (reading.created, reading.others, reading.faults) == ([], 1, [])


def test_a_message_without_records_is_no_fault() -> None:
    assert read('{"Records": []}') == read(records())
    assert not read(records()).faults


@pytest.mark.parametrize(
    "encoded", ["in%2Fa+b%C3%A9.jpg", "in/a%20b%C3%A9.jpg", "in/a+b%C3%A9.jpg"], ids=["moto", "other", "aws"]
)
def test_keys_are_decoded_however_a_server_encodes_them(encoded: str) -> None:
    (created,) = read(records(record("s3:ObjectCreated:CompleteMultipartUpload", key=encoded))).created
    assert created.key == "in/a bé.jpg"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": "\\ud800"}', "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "neither an S3 event"),
        ('{"Records": {}}', "neither an S3 event"),
        (records(1), "an S3 record is not an object"),
        (records({}), "eventName is missing"),
        (records({"eventName": "ObjectCreated:Put"}), "s3 of a record is not an object"),
        (records(record(key="a.jpg", bucket=7)), "name is missing"),
        (records(record(key="")), "key is missing"),
        (records(record(key="a%00.jpg")), "key is no key of S3"),
        (records(record(key="é" * 600)), "key is no key of S3"),
        (records(record(key="%ff.jpg")), "key is not UTF-8"),
        (records(record(key="a.jpg", eTag=["x"])), "eTag is not a text"),
        (json.dumps({**BRIDGE, "detail": None}), "detail is not an object"),
        (by_sns("hello"), "not JSON"),
        (by_sns(by_sns(DIRECT)), "without a message of S3"),
        (by_sns("…", "SubscriptionConfirmation"), "confirm subscriptions yourself"),
    ],
)
def test_what_cannot_be_read_says_why(body: str, why: str) -> None:
    reading = read(body)
    assert reading.created == []
    assert why in reading.faults[0]


def test_a_bad_record_spoils_no_other() -> None:
    reading = read(records(record(key="a.jpg"), 7, record(key="b.jpg")))
    assert [created.key for created in reading.created] == ["a.jpg", "b.jpg"]
    assert len(reading.faults) == 1


def test_an_event_is_the_same_in_every_delivery_and_envelope() -> None:
    thing = {"version-id": HAPPY.version, "etag": HAPPY.etag, "sequencer": HAPPY.sequencer, "key": HAPPY.key}
    bridged = {**BRIDGE, "detail": {"bucket": {"name": HAPPY.bucket}, "object": thing}}
    (first,), (again,) = read(by_sns(DIRECT)).created, read(json.dumps(bridged)).created
    assert first.digest == again.digest == HAPPY.digest
    others = [
        HAPPY._replace(bucket="another"),
        HAPPY._replace(key="another"),
        HAPPY._replace(version="another"),
        HAPPY._replace(sequencer="another"),
        HAPPY._replace(version="", sequencer=""),
        HAPPY._replace(version="", sequencer="", etag="another"),
        HAPPY._replace(version="", etag=""),
    ]
    assert len({HAPPY.digest, *(other.digest for other in others)}) == len(others) + 1


KEYS = st.text(min_size=1).filter(lambda key: "\0" not in key and len(key.encode("utf-8", "ignore")) <= 300)
PLAIN_KEYS = KEYS.filter(lambda key: key.encode("utf-8", "ignore").decode() == key)


@given(PLAIN_KEYS, st.sampled_from([quote, quote_plus, lambda key: quote_plus(key, safe="/")]))
def test_any_key_comes_back_as_it_was(key: str, encode: Any) -> None:
    (created,) = read(records(record(key=encode(key)))).created
    assert created.key == key
    bridged = {**BRIDGE, "detail": {"bucket": {"name": "b"}, "object": {"key": key}}}
    assert read(json.dumps(bridged)).created[0].key == key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
NAMES = ["Records", "Event", "detail-type", "source", "detail", "TopicArn", "Type", "Message"]
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "eventName": st.just("ObjectCreated:Put") | JSON,
        "s3": st.fixed_dictionaries(
            {},
            optional={
                "bucket": st.fixed_dictionaries({}, optional={"name": JSON | st.text()}) | JSON,
                "object": st.fixed_dictionaries({}, optional={"key": JSON | st.text(), "eTag": JSON}) | JSON,
            },
        )
        | JSON,
    },
)
MESSAGES = (
    JSON
    | st.dictionaries(st.sampled_from(NAMES), JSON)
    | st.fixed_dictionaries({"Records": st.lists(PARTS | JSON, max_size=3)})
)


@given(MESSAGES.map(json.dumps) | st.text() | MESSAGES.map(json.dumps).map(by_sns))
def test_anything_at_all_is_read_or_a_fault(body: str) -> None:
    reading = read(body)
    for created in reading.created:
        assert created.key.encode()
        assert "\0" not in created.key
        assert len(created.digest) == 64

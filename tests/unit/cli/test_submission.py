"""What `captionfleet submit` makes of addresses: images, a prefix, or a manifest that lies in S3."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captionfleet_client import Images, Manifest, ObjectFilter, Prefix
from cli.submission import _named


def _sent(source: Images | Prefix | Manifest) -> Any:
    return json.loads(b"".join(source.request({}).body.blocks()))


@pytest.mark.parametrize(
    ("addresses", "request_"),
    [
        (["s3://b/a.jpg"], {"images": [{"s3_uri": "s3://b/a.jpg"}]}),
        (
            ["https://x/a?b=c", "s3://b/a"],
            {"images": [{"url": "https://x/a?b=c"}, {"s3_uri": "s3://b/a"}]},
        ),
        (["s3://b"], {"s3_prefix": "s3://b/"}),
        (["s3://b/photos"], {"s3_prefix": "s3://b/photos/"}),
        (["s3://b/photos/"], {"s3_prefix": "s3://b/photos/"}),
        (["s3://b/m.CSV"], {"manifest": "s3://b/m.CSV"}),
        (["http://x/m.csv"], {"images": [{"url": "http://x/m.csv"}]}),
    ],
)
def test_addresses_say_what_they_are(addresses: list[str], request_: dict[str, Any]) -> None:
    assert _sent(_named(addresses, None)) == request_


def test_a_filter_makes_a_prefix_of_any_name() -> None:
    wanted: ObjectFilter = {"glob": "*.jpg"}
    assert _sent(_named(["s3://b/album.jpg"], wanted)) == {"s3_prefix": "s3://b/album.jpg/", "filter": wanted}

"""What `captionfleet submit` makes of addresses: images, a prefix, or a manifest that lies in S3."""

from __future__ import annotations

from typing import Any

import pytest

from cli.submission import _named


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
    assert _named(addresses, filtered=False) == request_


def test_a_filter_makes_a_prefix_of_any_name() -> None:
    assert _named(["s3://b/album.jpg"], filtered=True) == {"s3_prefix": "s3://b/album.jpg/"}

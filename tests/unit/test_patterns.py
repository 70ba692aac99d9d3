"""Patterns that are held against strangers' text take no longer than its length allows, whatever it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from api.auth import _BEARER
from api.cursors import _RANK
from api.filenames import disposition
from jobs.filters import matches
from jobs.manifests import _PLAIN_URI
from jobs.names import clean_path
from jobs.objects.s3_reads import _PLAIN_KEY
from jobs.urls import UrlError, UrlGuard

# A pattern that backtracks takes minutes for such lengths, one that does not milliseconds.
LIMIT_S = 2.0
LONG = 8_000


def check_url(text: str) -> None:
    with pytest.raises(UrlError):
        UrlGuard().check(text)


TRAPS: dict[str, Callable[[], object]] = {
    "file name": lambda: disposition("form-data; filename*=" + "a" * LONG),
    "file name of quotes": lambda: disposition('form-data; name="' + '\\"' * (LONG // 2)),
    "file name of separators": lambda: disposition("form-data" + ";  " * (LONG // 3)),
    "extended file name": lambda: disposition("form-data" + ";filename*=a'" * (LONG // 13)),
    "header without end": lambda: disposition("=" * LONG),
    "bearer": lambda: _BEARER.fullmatch("bearer" + " " * LONG + "\x00"),
    "cursor": lambda: _RANK.fullmatch("s0x1." + "f" * LONG + "p+1:"),
    "URI": lambda: _PLAIN_URI.fullmatch("s3://" + "a" * 60 + "/a" * LONG + "\0"),
    "key": lambda: _PLAIN_KEY.fullmatch("a " * LONG + "/" * 2),
    "glob": lambda: matches(["a" * 1_024], ["*a" * 500 + "b"]),
    "glob of folders": lambda: matches(["a"] * 500, ["**", "*a"] * 250 + ["b"]),
    "archive path": lambda: clean_path("../" * LONG + "C:/" * LONG),
    "URL": lambda: check_url("http://" + "[" * 2_000),
    "URL of dots": lambda: check_url("http://127.0.0.1" + "/.." * 600),
}


@pytest.mark.parametrize("name", TRAPS)
def test_no_text_makes_a_pattern_slow(name: str) -> None:
    began = time.process_time()
    TRAPS[name]()
    assert time.process_time() - began < LIMIT_S

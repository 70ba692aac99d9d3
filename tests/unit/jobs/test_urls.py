"""The URL guard, against real servers on this machine: what it refuses, where it connects, what it takes."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.addresses import Trusted, is_public
from jobs.urls import Limits, UrlError, UrlGuard
from tests.web import Answering, Came, Web, answer, serving

LIMITS = Limits(max_bytes=100_000, timeout_s=5)
HERE = UrlGuard(["127.0.0.0/8"])


def refusal(call: Callable[[], object]) -> UrlError:
    with pytest.raises(UrlError) as caught:
        call()
    return caught.value


@pytest.fixture
def web() -> Iterator[Web]:
    """A server that serves three bytes of an image at every path."""
    with serving(lambda handler, came: answer(handler, body=b"abc", Content_Type="image/png")) as running:
        yield running


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com:70/x",
        "//example.com/a",
        "https://",
        "http://user:secret@example.com/",
        "http://user@example.com/",
        "http://example.com:22/",
        "http://example.com:0/",
        "http://example.com:70000/",
        "http://[::1/",
        "http://exam\nple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://[::1]\udc8e/",
        f"http://example.com/{'a' * 2048}",
    ],
)
def test_what_no_name_server_need_be_asked_about_is_refused_at_once(url: str) -> None:
    assert refusal(lambda: UrlGuard().check(url)).code == "url_forbidden"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
def test_addresses_that_are_not_public_are_refused(web: Web, host: str) -> None:
    error = refusal(lambda: UrlGuard().fetch(web.url(host=host), LIMITS))
    # A system without IPv6 may not even parse some of them; none may be connected to.
    assert error.code == "url_forbidden" or host.startswith("["), error
    assert not web.came
    if error.code == "url_forbidden":
        assert not any(character.isdigit() for character in error.message), "tells what a name resolves to"


@pytest.mark.parametrize("text", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_an_operator_trusts_names_and_networks(web: Web) -> None:
    for allowed in ("127.0.0.1", "127.0.0.0/8", "LOCALHOST."):
        fetched = UrlGuard([allowed]).fetch(
            web.url(host="localhost" if "LOCAL" in allowed else "127.0.0.1"), LIMITS
        )
        assert (fetched.body, fetched.content_type) == (b"abc", "image/png")
    assert refusal(lambda: UrlGuard(["localhost"]).fetch(web.url(), LIMITS)).code == "url_forbidden"
    with pytest.raises(ValueError, match="neither a host name"):
        Trusted.parse(["http://images.lan/"])


def test_every_redirect_is_checked(web: Web) -> None:
    web.answering = lambda handler, came: answer(handler, 302, Location=web.url("/inner"))
    error = refusal(lambda: UrlGuard(["localhost"]).fetch(web.url(host="localhost"), LIMITS))
    assert error.code == "url_forbidden"
    assert [came.path for came in web.came] == ["/"]
    web.answering = lambda handler, came: answer(handler, 302, Location="file:///etc/passwd")
    assert refusal(lambda: HERE.fetch(web.url(), LIMITS)).code == "url_forbidden"


def test_redirects_are_followed_and_not_for_ever(web: Web) -> None:
    def redirect(handler: BaseHTTPRequestHandler, came: Came) -> None:
        number = int(came.path.rpartition("/")[2] or 0)
        last = number == 5
        body = b"found" if last else b""
        answer(handler, 200 if last else 307, body, **({} if last else {"Location": f"/hop/{number + 1}"}))

    web.answering = redirect
    assert HERE.fetch(web.url(), LIMITS).body == b"found"
    web.answering = lambda handler, came: answer(handler, 301, Location="/again")
    assert "redirects more than" in refusal(lambda: HERE.fetch(web.url(), LIMITS)).message


def test_the_connection_goes_to_the_very_address_that_was_checked(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers differently the second time is asked once; Host stays the URL's own."""
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.9.9.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert UrlGuard(["127.0.0.1"]).fetch(web.url(host="images.example"), LIMITS).body == b"abc"
    assert asked == ["images.example"]
    assert web.came[0].headers["Host"] == f"images.example:{web.port}"
    assert refusal(lambda: UrlGuard(["127.0.0.1"]).fetch(web.url(host="images.example"), LIMITS)).code == (
        "url_forbidden"
    )


def test_a_forbidden_address_beside_a_public_one_is_passed_over(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(host: str, port: int, **_: Any) -> list[Any]:
        names = [("10.0.0.1", port), ("127.0.0.1", port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", name) for name in names]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert UrlGuard(["127.0.0.1"]).fetch(web.url(host="images.example"), LIMITS).body == b"abc"


def _endless(handler: BaseHTTPRequestHandler, came: Came) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 10_000)


def _dripping_head(handler: BaseHTTPRequestHandler, came: Came) -> None:
    while True:
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


def _dripping_body(handler: BaseHTTPRequestHandler, came: Came) -> None:
    handler.send_response(200)
    handler.end_headers()
    _dripping_head(handler, came)


def _broken_off(handler: BaseHTTPRequestHandler, came: Came) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"abc")
    handler.close_connection = True


def _garbage(handler: BaseHTTPRequestHandler, came: Came) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answering", "code", "passing"),
    [
        (lambda h, c: answer(h, 404), "object_not_found", False),
        (lambda h, c: answer(h, 403), "access_denied", False),
        (lambda h, c: answer(h, 400), "download_failed", False),
        (lambda h, c: answer(h, 302), "download_failed", False),
        (lambda h, c: answer(h, 429), "download_failed", True),
        (lambda h, c: answer(h, 503), "download_failed", True),
        (lambda h, c: answer(h, body=b"<p>", Content_Type="text/html"), "unsupported_format", False),
        (lambda h, c: answer(h, body=b"x" * 2000), "image_too_large", False),
        (_endless, "image_too_large", False),
        (_dripping_head, "download_failed", True),
        (_dripping_body, "download_failed", True),
        (_broken_off, "download_failed", True),
        (_garbage, "download_failed", True),
    ],
)
def test_answers_that_are_no_image(web: Web, answering: Answering, code: str, passing: bool) -> None:
    web.answering = answering
    began = time.monotonic()
    error = refusal(lambda: HERE.fetch(web.url(), Limits(1000, 0.5, ("image/",))))
    assert (error.code, error.passing) == (code, passing)
    assert time.monotonic() - began < 10


def test_names_and_ports_where_nothing_answers() -> None:
    nobody = refusal(lambda: UrlGuard().fetch("http://nobody.invalid/", LIMITS))
    assert nobody.code == "download_failed"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    closed = refusal(lambda: HERE.fetch(f"http://127.0.0.1:{port}/", LIMITS))
    assert (closed.code, closed.passing) == ("download_failed", True)


def test_paths_are_sent_as_they_stand_or_quoted(web: Web) -> None:
    HERE.fetch(web.url("/a b/ü%20c.jpg?q=1&r=ä#part"), LIMITS)
    assert web.came[0].path == "/a%20b/%C3%BC%20c.jpg?q=1&r=%C3%A4"


def test_a_post_follows_no_redirect_and_reads_the_beginning(web: Web) -> None:
    web.answering = lambda handler, came: answer(handler, 302, b"x" * 5000, Location="/else")
    reply = HERE.post(web.url("/hook"), b"{}", {"Content-Type": "application/json"}, 5, 100)
    assert (reply.status, reply.body) == (302, b"x" * 100)
    assert [(came.method, came.path, came.body) for came in web.came] == [("POST", "/hook", b"{}")]


def test_tls_checks_the_urls_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate must fit the name in the URL, although the connection is made to an address."""
    certificate = _self_signed(tmp_path, "images.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    guard = UrlGuard(["127.0.0.1"], tls=ssl.create_default_context(cafile=str(certificate)))

    def here(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with serving(lambda handler, came: answer(handler, body=b"abc"), server) as web:
        assert guard.fetch(web.url(host="images.example", scheme="https"), LIMITS).body == b"abc"
        other = refusal(lambda: guard.fetch(web.url(host="other.example", scheme="https"), LIMITS))
        assert "certificate" in other.message
        unknown = refusal(
            lambda: UrlGuard(["127.0.0.1"]).fetch(web.url(host="images.example", scheme="https"), LIMITS)
        )
        assert "certificate" in unknown.message


def _self_signed(folder: Path, host: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    unencrypted = serialization.NoEncryption()
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path

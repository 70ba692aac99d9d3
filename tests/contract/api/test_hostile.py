"""Requests that no honest client sends are answered in our words, and the service goes on."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import httpx
import pytest

from jobs.services import Services
from tests.contract.api.support import (
    BOUNDARY,
    MULTIPART,
    Client,
    Deployment,
    multipart,
    part,
    photos,
    raw_part,
    refused,
)
from tests.pictures import jpeg_bytes

JSON = "application/json"
URL = b'"images":[{"url":"http://example.org/a.jpg"}]'
FIELD = b"Content-Disposition: form-data; name=images; filename=a.jpg"


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


REFUSED_JSON = {
    "deep lists": b"[" * 100_000,
    "deep metadata": b'{"metadata":%s,%s}' % (nested(5_000), URL),
    "a number of 10,000 digits": b'{"metadata":{"a":%s},%s}' % (b"9" * 10_000, URL),
    "not a number": b'{"metadata":{"a":NaN},%s}' % URL,
    "infinity": b'{"metadata":{"a":1e999},%s}' % URL,
    "half a character": b'{"metadata":{"a":"\\ud800"},%s}' % URL,
    "half a character in a name": b'{"images":[{"url":"http://example.org/","custom_id":"\\udc80"}]}',
    "NUL in a name": b'{"images":[{"url":"http://example.org/","custom_id":"\\u0000"}]}',
    "bytes that are not UTF-8": b'{"images":[{"url":"http://example.org/\xff"}]}',
    "a line end in a URL": b'{"images":[{"url":"http://example.org/a\\r\\nHost: b"}]}',
    "a line end in a webhook": b'{"webhook_url":"https://example.org/\\r\\nX: y",%s}' % URL,
    "an unclosed bracket in a webhook": b'{"webhook_url":"https://[::1",%s}' % URL,
}


@pytest.mark.parametrize("name", REFUSED_JSON)
def test_json_that_is_a_trap_is_refused(client: Client, name: str) -> None:
    refused(client.post("/v1/jobs", REFUSED_JSON[name], JSON), "invalid_request")


TAKEN_JSON = {
    "metadata of many levels": b'{"metadata":%s,%s}' % (nested(60), URL),
    "a number beyond 64 bits": b'{"metadata":{"a":1180591620717411303424},%s}' % URL,
    "NUL in metadata": b'{"metadata":{"\\u0000":"\\u0000"},%s}' % URL,
    "NUL in a prompt": b'{"options":{"prompt":"a\\u0000"},%s}' % URL,
    "an unclosed bracket in a URL": b'{"images":[{"url":"http://[::1"}]}',
    "a name that no name server has": b'{"images":[{"url":"http://%s.org/"}]}' % (b"a" * 300),
    "somebody's name before the host": b'{"images":[{"url":"http://example.org@127.0.0.1/"}]}',
}


@pytest.mark.parametrize("name", TAKEN_JSON)
def test_odd_but_valid_json_makes_a_job_that_can_be_read_again(client: Client, name: str) -> None:
    answer = client.post("/v1/jobs", TAKEN_JSON[name], JSON)
    assert answer.status_code == 202, answer.text
    assert client.get(f"/v1/jobs/{answer.json['id']}").status_code == 200
    assert client.get(f"/v1/jobs/{answer.json['id']}/items").json["data"][0]["name"]


REFUSED_MANIFESTS = {
    "a line without an end": (
        b'{"url":"http://example.org/%s"}' % (b"a" * 2_000_000),
        "application/x-ndjson",
    ),
    "deep NDJSON": (b"[" * 8_000, "application/x-ndjson"),
    "a quote without an end": (b'url\n"' + b"a\n" * 200_000, "text/csv"),
    "NUL in CSV": (b"url\nhttp://example.org/\0.jpg\n", "text/csv"),
    "UTF-16": ("url\nhttp://example.org/a.jpg\n".encode("utf-16"), "text/csv"),
}


@pytest.mark.parametrize("name", REFUSED_MANIFESTS)
def test_manifests_that_are_traps_are_refused(client: Client, name: str) -> None:
    refused(client.post("/v1/jobs", *REFUSED_MANIFESTS[name]), "invalid_request")


REFUSED_MULTIPART = {
    "500 headers": raw_part(b"\r\n".join([FIELD, *(b"X-%d: y" % n for n in range(500))]), b"x"),
    "a header of 20 kB": raw_part(FIELD + b"\r\nX: " + b"y" * 20_000, b"x"),
    "no name": raw_part(b"X: y", b"x"),
    "a header without a colon": raw_part(FIELD + b"\r\nnonsense", b"x"),
    "unknown parts": part("other", b"x") * 1_000,
    "a thousand job parts": part("job", b"{}") * 1_000,
    "a thousand empty fields": part("images", b"", "") * 1_000,
    "more images than a job holds": part("images", b"x", "a.jpg") * 61,
    "another boundary": b"--other\r\n" + FIELD + b"\r\n\r\nx\r\n--other--\r\n",
}


@pytest.mark.parametrize("name", REFUSED_MULTIPART)
def test_multipart_that_is_a_trap_is_refused_and_leaves_nothing(
    client: Client, deployment: Deployment, name: str
) -> None:
    before = deployment.jobs_with_objects()
    answer = client.upload(REFUSED_MULTIPART[name])
    code = "too_many_images" if "more images" in name else "invalid_request"
    refused(answer, code)
    assert deployment.jobs_with_objects() == before


@pytest.mark.parametrize(
    "boundary", ["", '""', "a" * 10_000, '"a\\b\\"c"', "\xff", "tests-boundary; boundary=other"]
)
def test_odd_boundaries_are_refused(client: Client, boundary: str) -> None:
    body = multipart(*photos(1)).replace(BOUNDARY.encode(), b"tests-boundar", 1)
    answer = client.post("/v1/jobs", body, f"multipart/form-data; boundary={boundary}")
    assert answer.json["code"] in ("invalid_request", "upload_incomplete")


@pytest.mark.parametrize(
    "header",
    [
        b'form-data; name="images"; filename="a\0b.jpg"',
        b"form-data; name=images; filename*=utf-8''%ed%a0%80.jpg",
        b"form-data; name=images; filename*=utf-16''%00%d8.jpg",
        b"form-data; name=images; filename*=zlib_codec''%78.jpg",
        b'form-data; name="images"; filename="..\\..\\a.jpg"',
        b'form-data; name="images"; filename="%s.jpg"' % (b"a" * 5_000),
        b'form-data; name="images"; filename="<script>alert(1)</script>"',
        b'form-data; name="images"; filename="=cmd|calc!A1"',
    ],
)
def test_hostile_file_names_become_plain_ones(client: Client, header: bytes) -> None:
    job = client.job(raw_part(b"Content-Disposition: " + header, jpeg_bytes(1)))
    [item] = client.get(f"/v1/jobs/{job['id']}/items").json["data"]
    assert 0 < len(item["name"]) <= 1024
    assert not set(item["name"]) & set("\0\r\n/\\")
    served = client.get(f"/v1/jobs/{job['id']}/items/0/image")
    assert served.status_code in (200, 302)
    assert not set(served.headers.get("Content-Disposition", "")) & set("\r\n<")


HEADERS = {
    "Cookie": ('captionfleet_session="', "=;;;=", "a=" + "b" * 6_000),
    "Origin": ("http://[::1", "null", "\xff"),
    "If_None_Match": ('W/"', "*", "x" * 5_000, '"\xff"'),
    "Accept": ("text/" + "a" * 5_000, ";q=x", "*/*;q=99999999999999999999"),
    "Range": ("bytes=" + ",".join(f"{n}-" for n in range(1_000)), "bytes=9-1", "bytes=-99999999999999999999"),
    "X_Request_Id": ("a\tb", "\xff", "x" * 5_000),
    "Prefer": ("wait=99999999999", "\xff"),
    "Sec_Fetch_Site": ("", "\xff"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_break_nothing(client: Client, name: str) -> None:
    job = client.job(*photos(1))["id"]
    for value in HEADERS[name]:
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/results?partial=1", f"/v1/jobs/{job}/items/0/image"):
            answer = client.get(path, **{name: value})
            assert answer.status_code in (200, 206, 302, 304, 403, 406, 416), (path, value, answer.text)


@pytest.mark.parametrize("value", ["[::1", "[", "a b", "\xff", "localhost:0@evil.example"])
def test_a_host_or_origin_that_is_none_is_no_way_in_without_keys(embedded: Services, value: str) -> None:
    client = Client(Deployment(embedded).app, None)
    refused(client.get("/v1/jobs", Host=value), "forbidden")
    refused(client.post("/v1/jobs", b"{}", JSON, Origin=f"http://{value}"), "forbidden")


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "\xff", "a\tb"])
def test_an_idempotency_key_is_short_and_plain(client: Client, key: str) -> None:
    refused(client.upload(*photos(1), Idempotency_Key=key), "invalid_request", "Idempotency-Key")


@pytest.mark.parametrize(
    "path",
    [
        "%00",
        "%ff%fe",
        "..%2f..%2fetc%2fpasswd",
        "{id}/items/99999999999999999999999999",
        "{id}/items/2147483648",
        "{id}/items/-1",
        "{id}/items/%D9%A1",
        "x' OR '1'='1",
    ],
)
def test_odd_paths_lead_nowhere(client: Client, path: str) -> None:
    job = client.job(*photos(1))["id"]
    assert client.get(f"/v1/jobs/{path.replace('{id}', job)}").status_code == 404


@pytest.mark.parametrize(
    "cursor", ["s0x1.0p+9999:0", "s0x1.0p+0:9999999999", "snone:2147483648", "i9999999999"]
)
def test_a_cursor_that_no_list_gave_out_is_refused(client: Client, cursor: str) -> None:
    job = client.job(*photos(1))["id"]
    sort = "score" if cursor.startswith("s") else "position"
    opaque = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    refused(client.get(f"/v1/jobs/{job}/items?sort={sort}&cursor={opaque}"), "invalid_request", "cursor")


@pytest.mark.parametrize("query", ["first=2147483647", "first=2147483647&q=a", "q=%25%5C_"])
def test_odd_but_valid_queries_are_answered(client: Client, query: str) -> None:
    job = client.job(*photos(1))["id"]
    assert client.get(f"/v1/jobs/{job}/items?{query}").json["data"] == []


@pytest.mark.parametrize(
    "path", ["/v1/jobs/{id}/items?q=a%00", "/v1/webhooks/deliveries?job_id=%00", "/v1/admin/keys?owner=%00"]
)
def test_nul_in_a_query_is_refused(client: Client, admin: Client, path: str) -> None:
    job = client.job(*photos(1))["id"]
    asking = admin if "admin" in path else client
    refused(asking.get(path.replace("{id}", job)), "invalid_request")


def test_nul_in_what_is_said_of_a_key_is_refused(admin: Client) -> None:
    for field in ("label", "owner"):
        body = json.dumps({"owner": "somebody", field: "a\0b"}).encode()
        refused(admin.post("/v1/admin/keys", body, JSON), "invalid_request", field)


def test_a_polyglot_is_what_its_first_bytes_say_and_never_run(client: Client) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.html", "<script>alert(1)</script>")
    image_and_zip = jpeg_bytes(1) + packed.getvalue()
    script_in_gif = b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)"
    page = b"<!doctype html><script>alert(1)</script>"
    job = client.job(
        part("images", image_and_zip, "a.zip"),
        part("images", script_in_gif, "a.js"),
        part("images", page, "a.jpg"),
    )["id"]
    types = []
    for position in range(3):
        answer = client.get(f"/v1/jobs/{job}/items/{position}/image")
        if answer.status_code == 302:
            # From the bucket, which is an origin of its own.
            served = httpx.get(answer.location)
            assert served.status_code == 200
            types.append(served.headers["Content-Type"])
            continue
        types.append(answer.mimetype)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert types == ["image/jpeg", "image/gif", "application/octet-stream"]
    refused(client.upload(part("archive", image_and_zip, "a.zip")), "invalid_request")


def test_what_a_refusal_quotes_cannot_become_a_header_or_a_page(client: Client) -> None:
    answer = client.get("/v1/jobs/%0d%0aSet-Cookie:%20a=b%3Cscript%3E")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert "Set-Cookie" not in answer.headers
    named = client.post("/v1/jobs", json.dumps({"<script>": 1}).encode(), JSON)
    assert named.mimetype == "application/problem+json"


def test_a_content_type_that_is_none_is_refused(client: Client) -> None:
    for kind in (
        "multipart/form-data",
        "multipart/mixed; boundary=a",
        "text/html",
        "\xff",
        "/",
        MULTIPART[:9],
    ):
        assert client.post("/v1/jobs", b"x", kind).json["code"] in (
            "invalid_request",
            "unsupported_media_type",
        )

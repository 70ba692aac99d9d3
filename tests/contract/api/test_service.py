"""Who may call, how everything else is refused, and the service's own routes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from api.app import ROUTES, create_app
from api.auth import REMEMBERED_S, Remembered
from jobs.callers import LOCAL_CALLER, Caller
from jobs.errors import REQUEST_STATUS, BrokerUnavailable, ItemCode
from jobs.queue import Message
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store import schema
from jobs.store.workers import Worker
from tests.contract.api.support import MULTIPART, Client, Deployment, document, multipart, photos, refused
from tests.processes import reserve_port, wait_until

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/icon.svg")
SECURED = [route for route in ROUTES if not route.keyless]


def concrete(path: str) -> str:
    return path.replace("{job_id}", "job_" + "0" * 26).replace("{position}", "0")


# Keys


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic Y2Y6Y2Y=", "Bearer cf_00000000_x", "Bearer \xe4", "cf_1_2"],
)
def test_every_call_needs_a_valid_key(client: Client, header: str | None) -> None:
    client.key = None
    headers = {} if header is None else {"Authorization": header}
    for route in SECURED:
        answer = client.call(route.method, concrete(route.path), **headers)
        refused(answer, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_page_its_files_and_the_probes_need_none(client: Client) -> None:
    for path in OPEN:
        assert client.http.get(path, buffered=True).status_code == 200


def test_the_scheme_is_read_in_any_case(client: Client) -> None:
    assert client.get("/v1/jobs", Authorization=f"bearer  {client.key}").status_code == 200


def test_a_revoked_key_works_for_seconds_at_most(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REMEMBERED_S <= 5
    monkeypatch.setattr("api.auth.REMEMBERED_S", 0.3)
    client = deployment.client()
    assert client.get("/v1/jobs").status_code == 200
    assert client.key is not None
    deployment.services.store.keys.revoke(client.key.split("_")[2])
    wait_until(lambda: client.get("/v1/jobs").status_code == 401, what="the key being refused")
    refused(client.get("/v1/jobs"), "unauthorized", "revoked")


def test_a_key_is_looked_up_once_in_a_while() -> None:
    asked: list[str] = []

    def find(key: str) -> Caller | None:
        asked.append(key)
        return LOCAL_CALLER if key == "good" else None

    known = Remembered(find)
    callers = [known.caller(key) for key in ("good", "good", "bad", "bad")]
    assert callers == [LOCAL_CALLER, LOCAL_CALLER, None, None]
    assert asked == ["good", "bad", "bad"]


# Embedded mode on this machine alone


def test_without_keys_everything_belongs_to_the_local_owner(embedded: Services) -> None:
    client = Client(create_app(embedded), None)
    job = client.job(*photos(1))
    assert embedded.store.jobs.get("local", job["id"])[0].id == job["id"]


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.8.8.8:9", "[::1]:8080", "LocalHost"])
def test_without_keys_this_machine_is_served(embedded: Services, host: str) -> None:
    client = Client(create_app(embedded), None)
    assert client.get("/v1/jobs", Host=host).status_code == 200
    assert client.get("/v1/jobs", Host=host, Origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example:8080", "10.0.0.7:8080", "[::2]"),
        *("127.evil.example:8080", "127.0.0.1.evil.example", "127.0.0.1.", "127.", "127.1", "0x7f000001"),
    ],
)
def test_without_keys_a_name_that_leads_here_is_refused(embedded: Services, host: str) -> None:
    client = Client(create_app(embedded), None)
    refused(client.get("/v1/jobs", Host=host), "forbidden", "CAPTIONFLEET_REQUIRE_KEYS=1")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9999"])
def test_without_keys_pages_of_other_sites_are_refused(embedded: Services, origin: str) -> None:
    client = Client(create_app(embedded), None)
    answer = client.post("/v1/jobs", multipart(*photos(1)), MULTIPART, Host="localhost:8080", Origin=origin)
    refused(answer, "forbidden", "may not use this API")
    assert embedded.store.jobs.page("local", None, 10, None) == ([], None)


# What the framework refuses


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/v1/job", "/v1/jobs/", "//v1/jobs", "/v1/limit", "/%00"),
        *("/static/nothing.js", "/static/../app.py"),
    ],
)
def test_what_is_not_there_is_not_found(client: Client, path: str) -> None:
    refused(client.get(path), "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
        ("DELETE", f"/v1/jobs/job_{'0' * 26}/items/0", "GET, HEAD, PATCH"),
        ("GET", "/v1/captions", "POST"),
        ("GET", f"/v1/jobs/job_{'0' * 26}/cancel", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("BREW", "/", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused_with_those_there_are(
    client: Client, method: str, path: str, allowed: str
) -> None:
    answer = client.call(method, path)
    refused(answer, "method_not_allowed", allowed)
    assert answer.headers["Allow"] == allowed


def test_head_answers_like_get_without_a_body(client: Client) -> None:
    answer = client.call("HEAD", "/v1/jobs")
    assert (answer.status_code, answer.data) == (200, b"")


def test_a_request_id_is_kept_if_it_is_sane(client: Client) -> None:
    assert client.get("/v1/jobs", X_Request_Id="abc-1.2:3").headers["X-Request-Id"] == "abc-1.2:3"
    for strange in ("", "x" * 129, "two words", "a\tb", "käse".encode().decode("latin-1")):
        made = client.get("/nothing", X_Request_Id=strange)
        assert made.headers["X-Request-Id"].startswith("req_")
        assert made.json["request_id"] == made.headers["X-Request-Id"]


def test_one_line_is_logged_for_a_request_and_no_secret(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client.get("/v1/jobs?limit=7")
    client.get("/v1/jobs/a%0Ab")
    client.get("/healthz")
    lines = [record.getMessage() for record in caplog.records if record.name == "captionfleet.requests"]
    assert len(lines) == 2
    assert re.match(r"GET /v1/jobs 200 \d+ ms owner=owner_\w+ id=req_\w+$", lines[0])
    assert "\n" not in lines[1]
    assert client.key is not None
    assert client.key not in caplog.text


# Dependencies that are away


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Distributed services whose servers are not there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{reserve_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings = Settings(
        database_url=f"postgresql://127.0.0.1:{reserve_port()}/x",
        redis_url=f"redis://127.0.0.1:{reserve_port()}/0",
        bucket="b-1",
        require_keys=False,
    )
    services = build_services(settings)
    yield services
    services.close()


def test_a_database_that_is_away_is_a_503(nowhere: Services) -> None:
    client = Client(create_app(nowhere), None)
    for answer in (
        client.get("/v1/jobs"),
        client.upload(*photos(1)),
        client.upload(*photos(1), Idempotency_Key="k"),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        refused(answer, "database_unavailable")
    assert client.get("/healthz").json == {"status": "ok", "checks": {}}


def test_readiness_names_what_is_away(nowhere: Services) -> None:
    answer = Client(create_app(nowhere), None).get("/readyz")
    assert answer.status_code == 503
    assert answer.json["status"] == "unavailable"
    assert answer.json["checks"]["database"] == "database_unavailable"
    assert answer.json["checks"]["schema"] == "database_unavailable"
    assert answer.json["checks"]["broker"] == "broker_unavailable"
    assert answer.json["checks"]["bucket"] in ("storage_unavailable", "timeout")


def test_readiness_tells_an_outdated_schema(tmp_path: Path) -> None:
    services = build_services(Settings(data_dir=tmp_path))
    client = Client(create_app(services), None)
    checks = client.get("/readyz").json["checks"]
    assert (checks["database"], checks["schema"]) == ("ok", "schema_outdated")
    schema.upgrade(services.store.database)
    wait_until(lambda: client.get("/readyz").status_code == 200, what="the ready service")
    services.close()


def test_a_ready_service_says_so_also_without_workers(client: Client, services: Services) -> None:
    services.store.workers.see(Worker("readiness", "large", "1", "", "cpu", 1.0))
    expected = {"database": "ok", "schema": "ok", "workers": "none for small"}
    expected |= {"folder": "ok"} if services.settings.embedded else {"bucket": "ok", "broker": "ok"}

    def ready() -> bool:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json["status"]) == (200, "ok")
        return bool(answer.json["checks"] == expected)

    wait_until(ready, what="the worker's row being seen")
    services.store.workers.leave("readiness")


class AwayQueue:
    """A queue whose broker is away."""

    def publish(self, messages: list[Message]) -> None:
        raise BrokerUnavailable("nobody there")


def test_a_broker_that_is_away_costs_no_job(deployment: Deployment) -> None:
    key = deployment.client().key
    intake = deployment.services.intake
    services = deployment.services
    away = type(intake)(
        services.settings, services.store, AwayQueue(), services.objects, services.expander.wake
    )
    client = Client(create_app(dataclasses.replace(deployment.services, intake=away)), key)
    job = client.job(*photos(1))
    assert client.get(job["links"]["self"]).json["status"] == "queued"


# Models, document, pages


def test_models_are_those_of_the_settings_with_their_workers(client: Client, services: Services) -> None:
    for number in range(2):
        services.store.workers.see(Worker(f"w{number}", "small", "small-1", "d" * 64, "cpu", 10.5))
    first, second = client.get("/v1/models").json["data"]
    assert first == {
        "name": "small",
        "default": True,
        "versions": ["small-1"],
        "devices": ["cpu"],
        "workers": 2,
        "images_per_second": 21.0,
        "takes_prompt": False,
    }
    assert (second["name"], second["default"], second["workers"]) == ("large", False, 0)
    assert (second["images_per_second"], second["takes_prompt"]) == (None, None)


def test_the_document_is_valid_openapi_and_complete(client: Client) -> None:
    served = json.loads(client.http.get("/openapi.json").data)
    validate(served)
    assert served == document()
    # What a job's output may be refused for is found out where the job is made.
    assert served["paths"]["/v1/jobs"]["post"]["responses"]["406"]["description"] == "not_acceptable"
    assert served["openapi"].startswith("3.1")
    rules = {
        (method, re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule))
        for rule in client.http.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    documented = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert documented == rules - {("GET", "/static/{path:filename}"), ("GET", "/static/<path:filename>")}
    names = [
        operation["operationId"] for methods in served["paths"].values() for operation in methods.values()
    ]
    assert len(names) == len(set(names))


def test_the_docs_page_tells_everything_and_loads_nothing_from_elsewhere(client: Client) -> None:
    answer = client.get("/docs")
    for path in document()["paths"]:
        assert path in answer.text
    for code in (*REQUEST_STATUS, *ItemCode):
        assert code in answer.text
    assert not re.search(r"(?:src|href)=\"(?!/|#)", answer.text)
    assert "<script" not in answer.text
    [nonce] = re.findall(r"<style nonce=\"([\w-]+)\">", answer.text)
    assert f"style-src 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]


def test_the_type_of_a_problem_is_explained_where_it_points_to(client: Client) -> None:
    page, _, anchor = client.get("/nothing").json["type"].partition("#")
    assert f'id="{anchor}"' in client.get(page).text


def test_the_page_runs_its_own_files_alone(client: Client, deployment: Deployment) -> None:
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for address in re.findall(r"(?:src|href)=\"([^\"]+)\"", answer.text):
        assert client.http.get(address, buffered=True).status_code == 200
    target = deployment.services.objects.upload_url("k", "image/jpeg", 1, 1)
    bucket = " " + "/".join(target.split("/")[:3]) if target else ""
    assert f"connect-src 'self'{bucket};" in policy
    assert f"img-src 'self'{bucket}" in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"


WITHOUT = """
import sys

BLOCKED = {"torch", "model", "worker", "cli", "openvino", "PIL", "boto3", "celery"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import api.app, api.server, api.wsgi
from jobs.services import build_services
from jobs.settings import Settings
from pathlib import Path

services = build_services(Settings(data_dir=Path(sys.argv[1])))
print(api.app.create_app(services).test_client().get("/healthz").status_code)
services.close()
"""


def test_the_api_runs_without_models_workers_and_cloud_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("200\n", "")


def test_importing_the_start_of_a_process_imports_nothing_else(tmp_path: Path) -> None:
    heavy = "{'flask', 'sqlalchemy', 'pydantic', 'gunicorn'}"
    code = f"import sys, api.wsgi; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"

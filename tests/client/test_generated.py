"""A client that a generator makes of the OpenAPI document works: `make setup-dev` installs the generator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from api.app import ROUTES
from api.openapi import openapi_document
from captionfleet_client import Client
from tests.e2e.cli.commands import Server
from tests.pictures import jpeg_bytes
from tests.servers import unavailable

GENERATOR = Path(sys.prefix) / "generator"
NAME = "generated_captionfleet"


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Generate a client; the value imports its modules."""
    if not GENERATOR.is_dir():
        unavailable(f"openapi-python-client is not installed in {GENERATOR}")
    (tmp_path / "openapi.json").write_text(json.dumps(openapi_document(ROUTES)))
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    words = ["generate", "--meta", "none", "--path", "openapi.json", "--config", "config.yml"]
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *words, "--output-path", NAME],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(GENERATOR)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    # It passes over manifests as bodies, and a direct upload's PUT, which goes to an address that was given.
    passed_over = re.findall(r"^WARNING parsing (.*) within", made.stderr, re.MULTILINE)
    assert passed_over == ["POST /v1/jobs"] * 2 + ["PUT /v1/uploads/{upload_id}"], made.stderr
    assert made.stderr.count("WARNING") == 3, made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: import_module(f"{NAME}.{name}")


def test_a_job_through_a_generated_client(server: Server, generated: Callable[[str], Any]) -> None:
    with generated("client").Client(base_url=server.url) as client:
        _use(client, generated, server)


def _use(client: Any, generated: Callable[[str], Any], server: Server) -> None:
    models, file = generated("models"), generated("types").File

    def call(route: str, *words: Any, **given: Any) -> Any:
        return generated(f"api.{route}").sync(*words, client=client, **given)

    photos = [file(BytesIO(jpeg_bytes(number)), f"{number}.jpg", "image/jpeg") for number in range(2)]
    spec = models.JobSpec(options=models.CaptionOptions(num_beams=1))
    job = call("jobs.create_job", body=models.CreateJobFilesBody(job=spec, images=photos))
    assert (job.status.value, job.counts.total, job.options.num_beams) == ("queued", 2, 1)
    with Client(server.url) as own:
        own.wait(job.id, timeout=60)
    assert call("jobs.read_job", job.id).status is models.JobStatus.COMPLETED
    items = call("items.list_items", job.id)
    assert [item.name for item in items.data] == ["0.jpg", "1.jpg"]
    assert all(item.caption for item in items.data)

    image = file(BytesIO(jpeg_bytes(3)), "3.jpg", "image/jpeg")
    assert call("captions.create_caption", body=models.CreateCaptionBody(image=image)).caption
    wanted = models.UploadFile(name="a.jpg", content_type="image/jpeg", size=5)
    [target] = call("uploads.create_uploads", body=models.UploadRequest(files=[wanted])).data
    assert target.url.startswith("http")
    refused = call(
        "jobs.create_job", body=models.JobRequest(images=[models.ImageReference(s3_uri="s3://bucket/a.jpg")])
    )
    assert (type(refused), refused.code) == (models.Problem, "forbidden")

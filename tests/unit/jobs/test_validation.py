"""What is wrong with a request is said in little memory, however much is wrong."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from pydantic import BaseModel, ValidationError

from jobs.records import JobRequest, UploadRequest
from jobs.validation import invalid

URL = {"url": "http://example.org/a.jpg"}
WRONG: dict[str, tuple[type[BaseModel], object, str]] = {
    "images": (JobRequest, {"images": [URL, *[{}] * 20_000]}, "images[1]: exactly one of"),
    "images of a wrong type": (JobRequest, {"images": [1] * 20_000}, "images[0]: "),
    "files": (UploadRequest, {"files": [{}] * 1_000}, "files[0].name is missing (and 1 more)"),
    "unknown fields": (
        JobRequest,
        {"images": [URL], **{f"a{n}": 0 for n in range(20_000)}},
        "20,000 fields are unknown or wrong",
    ),
    "unknown options": (
        JobRequest,
        {"images": [URL], "options": {f"a{n}": 0 for n in range(20_000)}},
        "20,000 fields are unknown or wrong",
    ),
    "a few": (JobRequest, {"images": [URL], "a": 1, "b": 2, "c": 3}, "unknown field a (and 2 more)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_much_that_is_wrong_takes_little_memory_to_say(name: str) -> None:
    model, body, said = WRONG[name]
    text = json.dumps(body).encode()
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError) as caught:
            model.model_validate_json(text)
        refusal = invalid(caught.value, "the request")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refusal.code == "invalid_request"
    assert said in refusal.message
    assert peak < len(text) + 100_000

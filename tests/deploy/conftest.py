"""The CloudFormation templates, synthesised once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.synthesis import Template, synthesise


@pytest.fixture(scope="session")
def synthesised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the default deployment's templates."""
    folder = tmp_path_factory.mktemp("cdk")
    synthesise(folder)
    return folder


@pytest.fixture(scope="session")
def service(synthesised: Path) -> Template:
    """The service's template, with defaults."""
    return dict(json.loads((synthesised / "captionfleet.template.json").read_text()))

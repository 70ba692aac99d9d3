"""The CloudFormation templates, synthesised once, and the scripts that make them, one by one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.synthesis import AWS, Template, synthesise


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


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    """Load a module of the deployment, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(str(AWS))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, AWS / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load

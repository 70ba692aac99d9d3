"""docs/dependencies.md and requirements.lock keep up with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def _direct_dependencies() -> set[str]:
    found: set[str] = set()
    for file in [ROOT / "pyproject.toml", *ROOT.glob("client/pyproject.toml")]:
        document = tomllib.loads(file.read_text())
        extras = document["project"].get("optional-dependencies", {})
        groups = [document["project"]["dependencies"], document["build-system"]["requires"], *extras.values()]
        found |= {_name(requirement) for group in groups for requirement in group}
    return {name for name in found if not name.startswith("captionfleet")}


def _rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", (ROOT / "docs/dependencies.md").read_text(), re.M)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_every_direct_dependency_has_a_row_and_every_row_a_dependency() -> None:
    assert set(_rows()) == _direct_dependencies()


def test_every_row_gives_a_licence_and_a_reason() -> None:
    empty = [name for name, cells in _rows().items() if len(cells) != 2 or not all(cells)]
    assert empty == []


def test_the_lock_pins_every_direct_dependency() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {_name(line) for line in lines if "==" in line and not line.startswith("#")}
    # Build isolation fetches the build backend on its own.
    assert _direct_dependencies() - {"setuptools"} <= locked


def test_the_lock_names_no_machine() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "/home/" not in text

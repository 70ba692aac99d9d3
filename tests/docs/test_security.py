"""SECURITY.md names tests that are there."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT


def test_every_attack_has_its_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = text.split("## Attack by attack")[1].split("## Fuzzing")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "Attack" not in line]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", table)
    assert len(named) == len(rows) > 40
    there = {file: _functions(file) for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name not in there[file]] == []


def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

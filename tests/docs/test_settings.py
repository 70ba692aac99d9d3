"""docs/settings.md and .env.example name every setting, with its default and its help."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic.fields import FieldInfo

from jobs.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {str(field.validation_alias.choices[0]): field for field in Settings.model_fields.values()}


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    return (
        ",".join(value)
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _rows() -> dict[str, tuple[str, str]]:
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs/settings.md").read_text(), re.M
    )
    return {name: (default.strip("` "), text.replace("\\|", "|")) for name, default, text in rows}


def test_the_table_lists_every_setting_as_it_is() -> None:
    assert _rows() == {name: (_default(field), field.description) for name, field in FIELDS.items()}


def test_the_example_environment_is_every_setting_at_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z0-9_]+=", line))
    unset = {name for name, field in FIELDS.items() if field.default is None}
    assert set(given) == set(FIELDS)
    assert {name: value for name, value in given.items() if name not in unset} == {
        name: _default(field) for name, field in FIELDS.items() if name not in unset
    }


def test_the_example_environment_changes_nothing_until_it_is_edited() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []

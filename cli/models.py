"""`captionfleet models`: what requests may name, and what is known of it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import print_table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(as_json: AsJson = False) -> None:
    """List the models of CAPTIONFLEET_MODELS: path, version, size, figures and licence."""
    from jobs.settings import load_settings

    settings = load_settings()
    found = [describe(name, settings.model_path(name)) for name in settings.model_names]
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    columns = ("name", "version", "size_mb", "metrics", "licence", "path")
    print_table(columns, [[_cell(model[column]) for column in columns] for model in found])


def describe(name: str, path: str) -> dict[str, Any]:
    """Return what the artifact or checkpoint in a model's folder says of itself."""
    from model.artifact import DESCRIPTION
    from model.loading import WEIGHTS

    folder = WEIGHTS / path if (WEIGHTS / path / DESCRIPTION).is_file() else Path(path)
    about = _read(folder / DESCRIPTION) or _read(folder / "checkpoint.json")
    files = [file for file in folder.glob("*") if file.is_file()] if about else []
    return {
        "name": name,
        "path": str(folder) if about else path,
        "version": about.get("name"),
        "size_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1) if about else None,
        "metrics": about.get("metrics") or {},
        "licence": about.get("licences") or {},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {entry}" for key, entry in value.items()) or "-"
    return "-" if value is None else str(value)

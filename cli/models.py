"""`captionfleet models`: what requests may name, and what is known of it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli import options
from cli.console import print_json


def models(as_json: options.AsJson = False) -> None:
    """List the models of CAPTIONFLEET_MODELS: path, version, size, figures and licence."""
    from jobs.settings import load_settings

    settings = load_settings()
    found = [describe(name, settings.model_path(name)) for name in settings.model_names]
    if as_json:
        print_json(found)
        return
    for model in found:
        print(f"{model['name']}{' (default)' if model is found[0] else ''}")
        for field in ("version", "size_mb", "metrics", "licence", "path"):
            for line in _lines(model[field]):
                print(f"  {field:8} {line}")


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
        "metrics": _figures(about.get("metrics") or {}),
        "licence": about.get("licences") or {},
    }


def _figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of an evaluation's JSON without the captions themselves."""
    scores = metrics.get("scores", metrics)
    return {name: value for name, value in scores.items() if not isinstance(value, dict | list)}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {entry}" for key, entry in value.items() if not isinstance(entry, dict | list)] or [
            "-"
        ]
    return ["-" if value is None else str(value)]

"""The run-time artifact: a folder of graphs and ``captioner.json``, which names every file's sha256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.captioner import Preprocessing
from model.errors import CheckpointInvalid

FORMAT = 1
DESCRIPTION = "captioner.json"
GRAPHS = ("encoder.xml", "encoder.bin", "decoder.xml", "decoder.bin")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact folder and its description."""

    folder: Path
    description: dict[str, Any]
    digest: str
    """sha256 of ``captioner.json``, which contains the sha256 of every other file."""

    @property
    def name(self) -> str:
        """Versioned name of the model."""
        return str(self.description["name"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become the encoder's input."""
        values = self.description["preprocessing"]
        return Preprocessing(values["width"], values["height"], values["resample"])


def read_artifact(folder: Path) -> Artifact:
    """Read the description and verify every file against it; raise ``CheckpointInvalid`` in one line."""
    path = folder / DESCRIPTION
    try:
        raw = path.read_bytes()
        description = json.loads(raw)
        files = description["files"]
        version = description["format"]
    except OSError as error:
        raise CheckpointInvalid(f"{folder} holds no model: {DESCRIPTION} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{path} is damaged: not the description of a captioner") from error
    if version != FORMAT:
        raise CheckpointInvalid(
            f"{path} has format {version!r}; this version of Captionfleet reads format {FORMAT}"
        )
    _verify(folder, files)
    return Artifact(folder, description, hashlib.sha256(raw).hexdigest())


def _verify(folder: Path, files: dict[str, str]) -> None:
    if not isinstance(files, dict) or set(files) != set(GRAPHS):
        raise CheckpointInvalid(f"{folder / DESCRIPTION} is damaged: it must list {', '.join(GRAPHS)}")
    for name in GRAPHS:
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointInvalid(f"{folder / name} is missing or cannot be read") from error
        if found != files[name]:
            raise CheckpointInvalid(f"{folder / name} is damaged: its sha256 is not the one in {DESCRIPTION}")


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``captioner.json`` beside the graphs, with their digests."""
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in GRAPHS}
    full = {"format": FORMAT, **description, "files": files}
    (folder / DESCRIPTION).write_text(json.dumps(full, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

"""Where a Hugging Face checkpoint lies: a folder of this machine, the hub's cache, or the hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from model.errors import CheckpointInvalid

PREFIX = "hf:"
"""Marks a model of an operator's settings or command as a Hugging Face checkpoint."""

ANSWER_LIMIT_S = 10.0
_HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_DESCRIBING = ["*.json", "*.jinja", "*.txt", "*.model"]
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def checkpoint_folder(reference: str) -> Path:
    """Return the folder of ``PATH``, ``ID`` or ``ID@REVISION``, downloading once what is not here yet.

    Raises ``CheckpointInvalid`` in one line, within seconds where the hub cannot be reached.
    """
    folder = Path(reference).expanduser()
    if reference and folder.is_dir():
        return _checked(folder)
    found = _HUB_ID.fullmatch(reference)
    if found is None or reference.startswith("."):
        raise CheckpointInvalid(f"no folder {folder}, and {reference!r} is not the id of a model on the hub")
    try:
        return _from_hub(found["id"], found["revision"])
    except ImportError as error:
        raise missing_extra(reference) from error


def missing_extra(reference: str) -> CheckpointInvalid:
    """Say what to install for Hugging Face models."""
    return CheckpointInvalid(f"{PREFIX}{reference} needs transformers: install 'captionfleet[model]'")


def digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of everything that decides captions, hex."""
    whole = hashlib.sha256()
    for path in sorted(path for pattern in (*_DESCRIBING, *_WEIGHTS) for path in folder.glob(pattern)):
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointInvalid(f"{folder} is no Hugging Face checkpoint: there is no config.json")
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise CheckpointInvalid(f"{folder} holds no weights (model.safetensors)")
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    safe = [*_DESCRIBING, _WEIGHTS[0]]
    for patterns in (safe, [*_DESCRIBING, _WEIGHTS[1]]):
        try:
            found = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True)
            return _checked(Path(found))
        except (LocalEntryNotFoundError, CheckpointInvalid):
            continue
    folder = _download(name, revision, safe)
    # Older checkpoints have pickled weights alone, which transformers reads as plain tensors.
    return _checked(folder if any(folder.glob(_WEIGHTS[0])) else _download(name, revision, [_WEIGHTS[1]]))


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils import httpx

    try:
        HfApi().model_info(name, revision=revision, timeout=ANSWER_LIMIT_S)
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise CheckpointInvalid(f"{name} asks for its terms to be accepted: log in with HF_TOKEN") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        at = f" at {revision}" if revision else ""
        raise CheckpointInvalid(f"the hub has no model {name}{at}, and there is no such folder") from error
    except (OSError, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        message = (
            f"{name} is not on this machine and the hub cannot be reached ({reason}): give a local folder"
        )
        raise CheckpointInvalid(message) from error

"""The one function that loads a captioner."""

from __future__ import annotations

from pathlib import Path

from model.artifact import DESCRIPTION, read_artifact
from model.captioner import Captioner
from model.errors import CheckpointInvalid
from model.hf_source import PREFIX, checkpoint_folder, missing_extra

WEIGHTS = Path(__file__).parent / "weights"
"""The models that ship with the repository, one folder each."""


def shipped_models() -> list[str]:
    """Names of the models that ship with the repository."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{DESCRIPTION}"))


def load_captioner(
    name_or_path: str,
    device: str = "cpu",
    *,
    cache_dir: Path | None = None,
    threads: int | None = None,
    precision: str = "auto",
) -> Captioner:
    """Load a shipped model by name, or an artifact or a training checkpoint by the path of its folder.

    ``hf:`` and a folder or hub id (``@`` revision) loads a Hugging Face checkpoint. Artifacts run on the CPU
    alone, in f32, bf16 or the better one (``auto``); checkpoints need torch and run on ``device`` (``auto``:
    the GPU, if any).
    Raises ``CheckpointInvalid`` in one line if the model is missing, damaged or does not fit.
    """
    if name_or_path.startswith(PREFIX):
        return _hugging_face(name_or_path.removeprefix(PREFIX), device, threads)
    folder = model_folder(name_or_path)
    if (folder / DESCRIPTION).is_file():
        if device not in ("auto", "cpu"):
            raise CheckpointInvalid(f"{name_or_path} is an exported model and runs on cpu, not on {device}")
        from model.openvino_captioner import load_openvino

        return load_openvino(read_artifact(folder), cache_dir, threads, precision)
    try:
        from model.torch_captioner import load_torch
    except ImportError as error:
        raise CheckpointInvalid(
            f"{folder} is a training checkpoint: install 'captionfleet[train]'"
        ) from error
    return load_torch(folder, best_device() if device == "auto" else device, threads)


def _hugging_face(reference: str, device: str, threads: int | None) -> Captioner:
    # Before anything heavy is imported: most mistakes are in the name.
    folder = checkpoint_folder(reference)
    try:
        from model.hf_captioner import load_hf
    except ImportError as error:
        raise missing_extra(reference) from error
    return load_hf(folder, reference, best_device() if device == "auto" else device, threads)


def best_device() -> str:
    """Say "cuda" where torch finds a GPU that it can use, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def model_folder(name_or_path: str) -> Path:
    """Return the folder of a shipped model by name, or of that path; raises ``CheckpointInvalid``."""
    shipped = WEIGHTS / name_or_path
    folder = shipped if name_or_path in shipped_models() else Path(name_or_path)
    if not folder.is_dir():
        known = ", ".join(shipped_models()) or "none"
        raise CheckpointInvalid(f"no model {name_or_path!r}: neither a folder nor a shipped model ({known})")
    return folder

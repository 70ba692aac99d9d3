"""From a training checkpoint to the run-time artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.artifact import write_description
from model.checkpoint import Checkpoint, load_checkpoint, preprocessing
from model.encoder_weights import encoder_licence
from model.english import FUNCTION_WORDS, UNFINISHED_ENDS
from model.errors import CheckpointInvalid
from model.graphs import memory_graph, step_graph

_LEFT_OUT = ("captions", "captions_per_second")  # long, and true of one machine only


def export(
    checkpoint: Path, output: Path, *, metrics: Path | None = None, notice: Path | None = None
) -> Path:
    """Write the artifact of a checkpoint into ``output``: fp16 OpenVINO graphs and description.

    ``metrics`` is an evaluation's JSON to carry along; ``notice`` says on what terms the weights may be used,
    which only who chose the training data knows. Raises ``CheckpointInvalid``.
    """
    import openvino as ov

    found = load_checkpoint(checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    ov.save_model(memory_graph(found.encoder, found.network), output / "encoder.xml", compress_to_fp16=True)
    ov.save_model(step_graph(found.network), output / "decoder.xml", compress_to_fp16=True)
    licences = {"encoder": encoder_licence(found.encoder_name)}
    if notice is not None:
        (output / "NOTICE").write_text(notice.read_text(encoding="utf-8"), encoding="utf-8")
        licences["weights"] = "see NOTICE"
    write_description(output, _description(found, _read_metrics(metrics), licences))
    return output


def _description(found: Checkpoint, metrics: dict[str, Any], licences: dict[str, str]) -> dict[str, Any]:
    return {
        "name": found.name,
        "encoder": found.encoder_name,
        "preprocessing": preprocessing(found.encoder),
        "decoding": found.decoding,
        "licences": licences,
        "metrics": metrics,
        "notes": found.notes,
        "function_words": FUNCTION_WORDS,
        "unfinished_ends": UNFINISHED_ENDS,
        "vocabulary": found.tokenizer.vocabulary,
    }


def _read_metrics(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: value for name, value in metrics.items() if name not in _LEFT_OUT}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointInvalid(f"the metrics file {path} cannot be read") from error

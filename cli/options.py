"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import usage_error

if TYPE_CHECKING:
    from jobs.records import CaptionOptions

Model = Annotated[str | None, typer.Option(help="One of CAPTIONFLEET_MODELS; default: the first.")]
NumBeams = Annotated[int | None, typer.Option(min=1, max=5, help="Beams of the search; 1 is greedy.")]
NumCaptions = Annotated[int | None, typer.Option(min=1, max=5, help="Captions per image.")]
MaxLength = Annotated[int | None, typer.Option(min=1, max=50, help="Most words.")]
MinLength = Annotated[int | None, typer.Option(min=0, max=50, help="Fewest words.")]
Prompt = Annotated[
    str | None, typer.Option(help="Start of the caption, or instruction, for models that take one.")
]
LengthPenalty = Annotated[
    float | None, typer.Option(min=0, max=2, help="More favours longer captions.", show_default="1")
]
TopP = Annotated[
    float | None, typer.Option(min=0.01, max=1, help="Sample among the likeliest words that reach this.")
]
Temperature = Annotated[float | None, typer.Option(min=0.1, max=2, help="Sample; lower is less daring.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Of sampling.", show_default="0")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, …", show_default="auto")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print results as JSON lines.")]


class SidecarKind(StrEnum):
    """Files written beside each image."""

    TXT = "txt"
    JSON = "json"
    XMP = "xmp"


Sidecar = Annotated[
    SidecarKind | None,
    typer.Option(help="Beside each photo.jpg: photo.txt (the caption), .json (all), .xmp (dc:description)."),
]


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a command's arguments that are options of a job."""
    from jobs.records import CaptionOptions

    return {name: value for name, value in arguments.items() if name in CaptionOptions.model_fields}


def caption_options(**given: str | float | None) -> CaptionOptions:
    """Return the options of a job, by their names in the API; raise ``CommandFailed`` for impossible ones."""
    from pydantic import ValidationError

    from jobs.records import CaptionOptions
    from jobs.validation import invalid

    try:
        return CaptionOptions.model_validate(given)
    except ValidationError as error:
        raise usage_error(invalid(error, "the options").message) from error

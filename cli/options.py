"""Options that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

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


def caption_options(**given: str | float | None) -> CaptionOptions:
    """Return the options of a job, by their names in the API."""
    from jobs.records import CaptionOptions

    return CaptionOptions.model_validate(given)

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
Prompt = Annotated[str | None, typer.Option(help="Start of the caption, for models that take one.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, …", show_default="auto")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def caption_options(
    model: str | None,
    num_beams: int | None,
    num_captions: int | None,
    max_length: int | None,
    min_length: int | None,
    prompt: str | None,
) -> CaptionOptions:
    """Return the options of a job."""
    from jobs.records import CaptionOptions

    return CaptionOptions(
        model=model,
        num_beams=num_beams,
        num_captions=num_captions,
        max_length=max_length,
        min_length=min_length,
        prompt=prompt,
    )

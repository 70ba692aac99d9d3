"""`captionfleet rules`: what becomes of new objects in S3, and whose jobs they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.console import print_table, say
from cli.operate import check_database, distributed, process_settings

if TYPE_CHECKING:
    from jobs.records import JobSpec
    from jobs.services import Services
    from jobs.store.rules import Rule

app = typer.Typer(no_args_is_help=True, help="Manage what becomes of new objects in S3 buckets.")


@app.command()
def add(
    uri: Annotated[str, typer.Argument(metavar="S3://BUCKET/PREFIX", show_default=False)],
    owner: Annotated[str, typer.Option(help="Whose jobs new images make.")],
    model: options.Model = None,
    num_beams: options.NumBeams = None,
    num_captions: options.NumCaptions = None,
    max_length: options.MaxLength = None,
    min_length: options.MinLength = None,
    prompt: options.Prompt = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Called when a job has ended.")] = None,
    to: Annotated[
        str | None, typer.Option(metavar="S3://BUCKET/PREFIX/", help="Write each job's results under it.")
    ] = None,
    sidecar: Annotated[str | None, typer.Option(help="txt or json beside each image.")] = None,
) -> None:
    """Caption new images under an S3 prefix; of several rules the longest prefix decides."""
    wanted = options.caption_options(
        model=model,
        num_beams=num_beams,
        num_captions=num_captions,
        max_length=max_length,
        min_length=min_length,
        prompt=prompt,
    )
    output = {"s3_prefix": to, "sidecar": sidecar}
    asked: dict[str, Any] = {"priority": priority, "webhook_url": webhook}
    asked["output"] = {name: value for name, value in output.items() if value} or None
    with _services() as services:
        rule = _add(services, uri, owner, {"options": wanted, **asked})
    say(f"New images under {rule.uri} become jobs of {rule.owner}.")
    print(rule.id)


@app.command("list")
def list_rules() -> None:
    """List the rules."""
    with _services() as services:
        found = services.store.rules.all()
    print_table(
        ("id", "where", "owner", "asks for"),
        [(rule.id, rule.uri, rule.owner, rule.spec.model_dump_json(exclude_defaults=True)) for rule in found],
    )
    if not found:
        say("There is no rule; make one with `captionfleet rules add S3://BUCKET/PREFIX --owner NAME`.")


@app.command()
def remove(rule_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)]) -> None:
    """Forget a rule; jobs that it made go on."""
    with _services() as services:
        services.store.rules.remove(rule_id)
    say(f"New images make no jobs by {rule_id} any more.")


def _add(services: Services, uri: str, owner: str, asked: dict[str, Any]) -> Rule:
    """Make a rule that is allowed what it asks for, as of now."""
    from jobs.objects.s3 import split_uri

    uri, spec = _checked(uri, {name: value for name, value in asked.items() if value is not None})
    services.intake.access(owner).check(uri)
    services.intake.check(spec)
    services.intake.check_output("job", owner, spec)
    return services.store.rules.add(owner, *split_uri(uri), spec)


def _checked(uri: str, asked: dict[str, Any]) -> tuple[str, JobSpec]:
    from pydantic import TypeAdapter, ValidationError

    from jobs.records import JobSpec, S3Prefix

    if uri.count("/") == 2:
        uri += "/"
    try:
        return TypeAdapter[str](S3Prefix).validate_python(uri), JobSpec.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or uri
        raise typer.BadParameter(f"{name}: {first['msg']}") from error


@contextmanager
def _services() -> Iterator[Services]:
    from jobs.services import build_services

    settings = distributed(process_settings(quiet=True), "captionfleet serve")
    check_database(settings, keys=False)
    services = build_services(settings)
    try:
        yield services
    finally:
        services.store.close()

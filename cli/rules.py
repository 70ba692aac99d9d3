"""`captionfleet rules`: what becomes of new objects in S3, and whose jobs they make."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.console import print_json, print_table, say
from cli.embedded import opened_services, opened_store
from cli.operate import distributed, process_settings

if TYPE_CHECKING:
    from jobs.records import JobSpec
    from jobs.settings import Settings
    from jobs.store import Store
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
    length_penalty: options.LengthPenalty = None,
    top_p: options.TopP = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Called when a job has ended.")] = None,
    to: Annotated[
        str | None, typer.Option(metavar="S3://BUCKET/PREFIX/", help="Write each job's results under it.")
    ] = None,
    sidecar: Annotated[str | None, typer.Option(help="txt or json beside each image.")] = None,
) -> None:
    """Caption new images under an S3 prefix; of several rules the longest prefix decides."""
    wanted = options.caption_options(**options.given(locals()))
    output = {"s3_prefix": to, "sidecar": sidecar}
    asked: dict[str, Any] = {"priority": priority, "webhook_url": webhook}
    asked["output"] = {name: value for name, value in output.items() if value} or None
    rule = _add(uri, owner, {"options": wanted, **asked})
    say(f"New images under {rule.uri} become jobs of {rule.owner}.")
    print(rule.id)


@app.command("list")
def list_rules(as_json: options.AsJson = False) -> None:
    """List the rules."""
    with _opened() as store:
        found = store.rules.all()
    if as_json:
        print_json([_shown(rule) for rule in found])
        return
    print_table(
        ("id", "where", "owner", "asks for"),
        [(rule.id, rule.uri, rule.owner, rule.spec.model_dump_json(exclude_defaults=True)) for rule in found],
    )
    if not found:
        say("There is no rule; make one with `captionfleet rules add S3://BUCKET/PREFIX --owner NAME`.")


@app.command()
def remove(rule_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)]) -> None:
    """Forget a rule; jobs that it made go on."""
    with _opened() as store:
        store.rules.remove(rule_id)
    say(f"New images make no jobs by {rule_id} any more.")


def _shown(rule: Rule) -> dict[str, Any]:
    spec = rule.spec.model_dump(mode="json", exclude_defaults=True)
    return {"id": rule.id, "owner": rule.owner, "uri": rule.uri, "spec": spec}


def _add(uri: str, owner: str, asked: dict[str, Any]) -> Rule:
    """Make a rule that is allowed what it asks for, as of now."""
    from jobs.objects.s3 import split_uri

    with opened_services(_settings()) as services:
        uri, spec = _checked(uri, {name: value for name, value in asked.items() if value is not None})
        services.intake.readable(owner)(uri)
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


def _settings() -> Settings:
    return distributed(process_settings(quiet=True))


def _opened() -> AbstractContextManager[Store]:
    return opened_store(_settings())

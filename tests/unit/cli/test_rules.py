"""`captionfleet rules` and what `captionfleet events` refuses at the start."""

from __future__ import annotations

import json

from tests.unit.cli.conftest import Run

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}


def test_a_rule_is_made_listed_and_removed(run: Run, postgres_url: str) -> None:
    settings = CREDENTIALS | {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CAPTIONFLEET_BUCKET": "own",
    }
    assert run("migrate", **settings).status == 0
    assert run("keys", "grant", "ada", "s3://pics/in/", **settings).status == 0
    assert "There is no rule" in run("rules", "list", **settings).complaints

    def refused(*words: str) -> str:
        ran = run("rules", "add", *words, "--owner", "ada", **settings)
        assert ran.status in (1, 2)
        return ran.error

    assert "keys grant ada s3://pics/…" in refused("s3://pics/other/")
    assert "this service's own bucket" in refused("s3://own/")
    assert "pattern" in refused("pics")
    assert "there is no model 'huge'" in refused("s3://pics/in/", "--model", "huge")
    assert "webhook_url: " in refused("s3://pics/in/", "--webhook", "http://127.0.0.1/hook")
    assert "--write" in refused("s3://pics/in/", "--to", "s3://pics/out/")
    assert "sidecars" in refused("s3://pics/in/", "--sidecar", "txt")
    assert "priority: " in refused("s3://pics/in/", "--priority", "urgent")

    options = "--num-captions 2 --num-beams 2 --length-penalty 1.5 --webhook https://example.org/hook".split()
    made = run("rules", "add", "s3://pics/in/", "--owner", "ada", *options, **settings)
    assert made.status == 0, made.complaints
    rule_id = made.output.strip()
    assert "has a rule already" in refused("s3://pics/in/")
    (row,) = [
        line.split("\t")
        for line in run("rules", "list", **settings).output.splitlines()
        if line.startswith("rule_")
    ]
    assert row[:3] == [rule_id, "s3://pics/in/", "ada"]
    assert '"num_captions":2' in row[3]
    (shown,) = json.loads(run("rules", "list", "--json", **settings).output)
    assert (shown["id"], shown["uri"]) == (rule_id, "s3://pics/in/")
    assert shown["spec"]["options"]["length_penalty"] == 1.5
    assert run("rules", "remove", rule_id, **settings).status == 0
    assert run("rules", "remove", rule_id, **settings).error.startswith(f"there is no rule {rule_id}")

    unset = run("events", **settings)
    assert (unset.status, "CAPTIONFLEET_EVENTS_QUEUE_URL is not set" in unset.error) == (2, True)


def test_events_need_distributed_mode_and_a_queue(run: Run) -> None:
    assert "REDIS_URL is not set" in run("events", "--queue-url", "http://localhost:9/1/q").error
    assert "CAPTIONFLEET_EVENTS_QUEUE_URL is not set" in run("events", "replay").error
    queue = ("--queue-url", "http://127.0.0.1:9/1/q")
    for words in (("replay", *queue), (*queue, "replay")):
        away = run("events", *words, **CREDENTIALS)
        assert away.status == 1
        assert "SQS does not answer" in away.error

"""Examples that `--help` of each command ends with."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "serve": (
        "captionfleet serve",
        "captionfleet serve --port 9000 --data-dir /srv/captions",
        "captionfleet serve --host 0.0.0.0 --first-key",
    ),
    "caption": (
        "captionfleet caption cat.jpg",
        "captionfleet caption photos/ -o captions.jsonl",
        "captionfleet caption photos/ -o captions.jsonl --resume",
        "captionfleet caption 'photos/**/*.jpg' --sidecar xmp",
        "captionfleet caption photos/ --write-metadata captioned/",
        "find photos -newer last-run -name '*.jpg' | captionfleet caption - --json",
    ),
    "watch": (
        "captionfleet watch inbox/",
        "captionfleet watch inbox/ -o captions.jsonl --settle 10",
    ),
    "demo": (
        "captionfleet demo",
        "captionfleet demo photos/",
    ),
    "submit": (
        "captionfleet submit photos/ --wait -o captions.csv",
        "captionfleet submit s3://my-photos/2024/ --suffix .jpg",
        "captionfleet submit list.csv --webhook https://example.org/captioned",
    ),
    "jobs": (
        "captionfleet jobs",
        "captionfleet jobs --status running --json",
    ),
    "status": (
        "captionfleet status JOB",
        "captionfleet status JOB --wait",
    ),
    "results": (
        "captionfleet results JOB -o captions.parquet",
        "captionfleet results JOB --partial",
    ),
    "cancel": ("captionfleet cancel JOB",),
    "retry": ("captionfleet retry JOB",),
    "delete": ("captionfleet delete JOB",),
    "api": ("captionfleet api --host 0.0.0.0 --port 8080",),
    "worker": (
        "captionfleet worker",
        "captionfleet worker --model small --device cuda:1",
    ),
    "migrate": (
        "captionfleet migrate",
        "captionfleet migrate --create-bucket",
    ),
    "models": (
        "captionfleet models",
        "captionfleet models --json",
    ),
    "doctor": (
        "captionfleet doctor",
        "captionfleet doctor --json",
    ),
    "stuck": ("captionfleet stuck",),
    "redrive": ("captionfleet redrive JOB",),
    "train": (
        "captionfleet train --images photos/ --captions captions.csv --config small --output runs/mine",
    ),
    "evaluate": (
        "captionfleet evaluate small --images photos/ --captions captions.csv --split dev",
        "captionfleet evaluate --results captions.jsonl --images photos/ --captions captions.csv",
    ),
    "export": ("captionfleet export runs/mine/checkpoint models/mine",),
    "events": (
        "captionfleet events",
        "captionfleet events --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/photos",
    ),
    "events replay": ("captionfleet events replay",),
    "keys create": (
        "captionfleet keys create --owner ada",
        "captionfleet keys create --owner ada --grant s3://my-photos/ada/",
        "captionfleet keys create --owner ada --scope read --expires 90d",
        "captionfleet keys create --owner ada --limit requests=20/second --limit images_per_day=10000",
    ),
    "keys list": ("captionfleet keys list",),
    "keys rotate": ("captionfleet keys rotate ID", "captionfleet keys rotate ID --grace 1h"),
    "keys limits": (
        "captionfleet keys limits ID",
        "captionfleet keys limits ID --limit concurrent_jobs=5 --limit requests=default",
    ),
    "keys revoke": ("captionfleet keys revoke ID",),
    "keys grant": (
        "captionfleet keys grant ada s3://my-photos/2024/",
        "captionfleet keys grant ada s3://captions/ --write",
    ),
    "keys ungrant": ("captionfleet keys ungrant ada s3://my-photos/2024/",),
    "rules add": (
        "captionfleet rules add s3://my-photos/inbox/ --owner ada",
        "captionfleet rules add s3://my-photos/inbox/ --owner ada --to s3://captions/ --num-beams 5",
    ),
    "rules list": ("captionfleet rules list",),
    "rules remove": ("captionfleet rules remove ID",),
    "webhooks secrets": ("captionfleet webhooks secrets",),
    "webhooks rotate": ("captionfleet webhooks rotate",),
    "webhooks deliveries": ("captionfleet webhooks deliveries --status failed",),
    "webhooks redeliver": ("captionfleet webhooks redeliver DELIVERY",),
}
"""By command, sub-commands as ``keys create``; each line can be typed as it stands."""


def epilog(command: str) -> str | None:
    """Return the examples of a command, if it has any, for the end of its help."""
    if command not in EXAMPLES:
        return None
    return "\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES[command])))

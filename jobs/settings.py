"""All settings, read once from the environment (the only place that does) into one frozen object."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.addresses import Trusted
from jobs.errors import StartupError
from jobs.limits import RATE_PATTERN

MIB = 1024 * 1024
HUGGING_FACE = "hf:"
"""Begins the path of a model that is a Hugging Face checkpoint."""
DEFAULT_MODEL = "small"


def _named(variable: str, default: Any, help_text: str, **limits: Any) -> Any:
    """Declare one setting: its environment variable, default and help."""
    return Field(default, validation_alias=AliasChoices(variable), description=help_text, **limits)


class Settings(BaseSettings):
    """Everything that can be configured; ``docs/settings.md`` lists it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    # Where things are kept
    database_url: str | None = _named(
        "DATABASE_URL",
        None,
        "PostgreSQL (postgresql://…) in distributed mode; unset: SQLite in the data folder.",
    )
    redis_url: str | None = _named(
        "REDIS_URL", None, "Redis broker (redis:// or rediss://). Setting it chooses distributed mode."
    )
    bucket: str | None = _named(
        "CAPTIONFLEET_BUCKET", None, "S3 bucket for uploads; unset: a folder in the data folder."
    )
    data_dir: Path = _named(
        "CAPTIONFLEET_DATA_DIR", Path("data"), "Folder of embedded mode: database and uploads."
    )
    cache_dir: Path | None = _named(
        "CAPTIONFLEET_CACHE_DIR",
        None,
        "Folder of compiled models; unset: captionfleet in the user's cache folder.",
    )
    user_cache: Path | None = _named(
        "XDG_CACHE_HOME", None, "The user's cache folder; unset: .cache in the home folder."
    )
    s3_endpoint: str | None = _named(
        "AWS_ENDPOINT_URL_S3", None, "An S3-compatible server instead of AWS (boto3 reads it too)."
    )
    s3_public_url: str | None = _named(
        "CAPTIONFLEET_S3_PUBLIC_URL",
        None,
        "The S3 server as clients reach it, where they use another address: presigned URLs name it.",
        pattern="^https?://[^/]",
    )

    # The API
    host: str = _named("CAPTIONFLEET_HOST", "127.0.0.1", "Address to listen on.")
    port: int = _named("CAPTIONFLEET_PORT", 8080, "Port to listen on.", ge=0, le=65535)
    api_workers: int = _named(
        "CAPTIONFLEET_API_WORKERS", 2, "API processes of `captionfleet api`.", ge=1, le=64
    )
    api_threads: int = _named("CAPTIONFLEET_API_THREADS", 8, "Threads per API process.", ge=2, le=256)
    require_keys: bool | None = _named(
        "CAPTIONFLEET_REQUIRE_KEYS",
        None,
        "Ask every call for an API key; unset: yes, except in embedded mode on a loopback address.",
    )
    session_hours: float = _named(
        "CAPTIONFLEET_SESSION_HOURS",
        12.0,
        "Hours after which the page asks for the key again.",
        gt=0,
        le=8760,
    )
    max_images: int = _named("CAPTIONFLEET_MAX_IMAGES", 1_000_000, "Images per job.", ge=1, le=100_000_000)
    max_image_bytes: int = _named("CAPTIONFLEET_MAX_IMAGE_BYTES", 50 * MIB, "Bytes per image.", ge=1024)
    max_image_pixels: int = _named(
        "CAPTIONFLEET_MAX_IMAGE_PIXELS", 100_000_000, "Pixels per image.", ge=1, le=1_000_000_000
    )
    max_upload_bytes: int = _named(
        "CAPTIONFLEET_MAX_UPLOAD_BYTES", 100 * 1024 * MIB, "Bytes per request that creates a job.", ge=1024
    )
    rate_limit: str = _named(
        "CAPTIONFLEET_RATE_LIMIT",
        "1000/10seconds",
        "Requests of one key, such as 50/second; none: as many as come. Without keys none are counted.",
        pattern=f"{RATE_PATTERN}|^none$",
    )
    concurrent_jobs: int | None = _named(
        "CAPTIONFLEET_CONCURRENT_JOBS",
        None,
        "Unfinished jobs of one owner; unset: as many as are submitted.",
        ge=1,
    )
    images_per_day: int | None = _named(
        "CAPTIONFLEET_IMAGES_PER_DAY",
        None,
        "Images that one owner's jobs may hold, by day (UTC); unset: no limit.",
        ge=0,
    )
    bytes_per_day: int | None = _named(
        "CAPTIONFLEET_BYTES_PER_DAY",
        None,
        "Bytes of images and archives that one owner may send, by day (UTC); unset: no limit.",
        ge=0,
    )
    caption_wait_s: float = _named(
        "CAPTIONFLEET_CAPTION_WAIT",
        10.0,
        "Seconds POST /v1/captions waits before it answers 202.",
        ge=0,
        le=60,
    )

    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = _named(
        "CAPTIONFLEET_TRUSTED_HOSTS",
        (),
        "Hosts, addresses and networks (10.1.0.0/16) that clients' URLs may name although not public.",
    )

    # The model
    models: Annotated[tuple[str, ...], NoDecode] = _named(
        "CAPTIONFLEET_MODELS",
        (DEFAULT_MODEL,),
        "Models that requests may name, comma-separated, the first is the default; NAME, NAME=PATH, "
        "NAME=hf:PATH or NAME=hf:ID of a Hugging Face checkpoint.",
    )
    device: str = _named("CAPTIONFLEET_DEVICE", "auto", "Device of the model: auto, cpu, cuda, cuda:1, …")
    threads: int | None = _named(
        "CAPTIONFLEET_THREADS", None, "CPU threads of the model; unset: all cores this process may use.", ge=1
    )
    precision: str = _named(
        "CAPTIONFLEET_PRECISION",
        "auto",
        "Arithmetic of exported models: f32, bf16, or auto (bf16 where the CPU has units for it).",
        pattern="^(auto|f32|bf16)$",
    )
    batch_size: int | None = _named(
        "CAPTIONFLEET_BATCH_SIZE",
        None,
        "Most images in one forward pass; unset: found by trying at the start on a GPU, 32 on a CPU.",
        ge=1,
        le=4096,
    )
    forward_limit_s: float = _named(
        "CAPTIONFLEET_FORWARD_LIMIT",
        300.0,
        "Seconds after which a stuck forward pass ends the process.",
        gt=0,
    )

    # The worker
    concurrency: int = _named(
        "CAPTIONFLEET_CONCURRENCY",
        4,
        "Chunks of large jobs a worker has in hand at once, and as many of small ones.",
        ge=1,
        le=64,
    )
    decode_processes: int = _named(
        "CAPTIONFLEET_DECODE_PROCESSES", 2, "Child processes that decode images.", ge=1, le=64
    )
    decode_memory_bytes: int = _named(
        "CAPTIONFLEET_DECODE_MEMORY", 2048 * MIB, "Memory limit of one decode process.", ge=256 * MIB
    )
    decode_limit_s: float = _named(
        "CAPTIONFLEET_DECODE_LIMIT", 30.0, "Seconds one image may take to decode.", gt=0
    )
    lease_s: float = _named(
        "CAPTIONFLEET_LEASE", 30.0, "Seconds a claimed chunk stays with a silent worker.", ge=1, le=600
    )
    download_limit_s: float = _named(
        "CAPTIONFLEET_DOWNLOAD_LIMIT", 30.0, "Seconds one image may take to come from a URL.", gt=0, le=600
    )
    max_failures: int = _named(
        "CAPTIONFLEET_MAX_FAILURES", 6, "Transient failures of a chunk before its images fail.", ge=1, le=100
    )
    cloudwatch_namespace: str | None = _named(
        "CAPTIONFLEET_CLOUDWATCH_NAMESPACE",
        None,
        "CloudWatch namespace that the backlog is told to once a minute, for autoscaling; unset: none.",
    )
    expected_rate: float = _named(
        "CAPTIONFLEET_EXPECTED_RATE",
        50.0,
        "Images/s of one worker, for the backlog in seconds, while none has been measured.",
        gt=0,
    )
    alive_file: Path | None = _named(
        "CAPTIONFLEET_ALIVE_FILE",
        None,
        "File that a worker or event consumer touches every few seconds, for a container's health check.",
    )
    retention_days: float = _named("CAPTIONFLEET_RETENTION_DAYS", 30.0, "Days a finished job is kept.", gt=0)
    log_level: str = _named(
        "CAPTIONFLEET_LOG_LEVEL",
        "info",
        "debug, info, warning or error.",
        pattern="(?i)^(debug|info|warning|error)$",
    )
    log_format: str = _named(
        "CAPTIONFLEET_LOG_FORMAT",
        "auto",
        "json (one object a line), text, or auto: json in distributed mode, but text in a terminal.",
        pattern="^(auto|json|text)$",
    )
    metrics_port: int | None = _named(
        "CAPTIONFLEET_METRICS_PORT",
        None,
        "Port where Prometheus reads this process's metrics, without a key; unset: none.",
        ge=0,
        le=65535,
    )
    metrics_host: str = _named(
        "CAPTIONFLEET_METRICS_HOST",
        "127.0.0.1",
        "Address of the metrics port; 0.0.0.0 where only the own network reaches it.",
    )

    otlp_endpoint: str | None = _named(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        "Collector that traces are sent to by OTLP over HTTP (http://collector:4318); unset: none are made.",
        pattern="^https?://[^/]",
    )

    celery_events: bool = _named(
        "CAPTIONFLEET_CELERY_EVENTS",
        False,
        "Workers announce themselves and every message they work on, for Flower to show.",
    )

    # Bucket events (captionfleet events)
    events_queue_url: str | None = _named(
        "CAPTIONFLEET_EVENTS_QUEUE_URL",
        None,
        "SQS queue that a bucket's event notifications go to.",
        pattern="^https?://[^/]+/.",
    )
    events_dead_letter_url: str | None = _named(
        "CAPTIONFLEET_EVENTS_DEAD_LETTER_URL",
        None,
        "Queue for notifications that cannot be used; unset: the one of the queue's own redrive policy.",
        pattern="^https?://[^/]+/.",
    )

    # The client commands (submit, jobs, status, results, cancel, retry, delete)
    url: str = _named(
        "CAPTIONFLEET_URL",
        "http://127.0.0.1:8080",
        "Server that the client commands talk to.",
        pattern="^https?://[^/]",
    )
    api_key: str | None = _named(
        "CAPTIONFLEET_API_KEY", None, "API key that the client commands send.", repr=False
    )

    @property
    def embedded(self) -> bool:
        """Whether this is embedded mode: no broker, everything in one process."""
        return self.redis_url is None

    @property
    def keys_required(self) -> bool:
        """Whether every call needs an API key."""
        if self.require_keys is not None:
            return self.require_keys
        return not self.embedded or not is_loopback(self.host)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names that requests may use; the first is the default."""
        return tuple(entry.partition("=")[0] for entry in self.models)

    def model_path(self, name: str) -> str:
        """Where the named model lies: the path given in ``CAPTIONFLEET_MODELS``, else its own name."""
        paths = dict(entry.partition("=")[::2] for entry in self.models)
        return paths.get(name) or name

    def with_model(self, model: str | None) -> tuple[Self, str | None]:
        """Return settings that have an operator's ``hf:`` checkpoint among the models, and its name there.

        Other models are names already. Raises ``StartupError`` where the name is another model's.
        """
        if model is None or not model.startswith(HUGGING_FACE):
            return self, model
        for entry in self.models:
            if entry.partition("=")[2] == model:
                return self, entry.partition("=")[0]
        entry = _named_model(model)
        name = entry.partition("=")[0]
        if name in self.model_names:
            message = f"CAPTIONFLEET_MODELS has another model {name!r}; add NAME={model} to it"
            raise StartupError("configuration_invalid", message)
        return self.model_copy(update={"models": (*self.models, entry)}), name

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        for key in ("CAPTIONFLEET_MODELS", "models", "CAPTIONFLEET_TRUSTED_HOSTS", "trusted_hosts"):
            if isinstance(values.get(key), str):
                parts = tuple(_named_model(part.strip()) for part in values[key].split(",") if part.strip())
                values = {**values, key: parts}
        return values

    @model_validator(mode="after")
    def _refuse_impossible(self) -> Self:
        if not self.models:
            raise ValueError("CAPTIONFLEET_MODELS names no model")
        try:
            Trusted.parse(self.trusted_hosts)
        except ValueError as error:
            raise ValueError(f"CAPTIONFLEET_TRUSTED_HOSTS: {error}") from error
        if self.redis_url and urlsplit(self.redis_url).scheme not in ("redis", "rediss"):
            raise ValueError("REDIS_URL must start with redis:// or rediss://")
        if self.redis_url and not (self.database_url or "").startswith("postgresql"):
            raise ValueError(
                "REDIS_URL is set, so DATABASE_URL must name a PostgreSQL database (postgresql://…)"
            )
        if self.redis_url and not self.bucket:
            raise ValueError("REDIS_URL is set, so CAPTIONFLEET_BUCKET must name the S3 bucket for uploads")
        if self.embedded and self.database_url and not self.database_url.startswith("sqlite:///"):
            raise ValueError("DATABASE_URL names a server, so REDIS_URL must be set too (or unset both)")
        if self.embedded and self.require_keys is False and not is_loopback(self.host):
            raise ValueError(
                f"CAPTIONFLEET_HOST={self.host} is not loopback, so CAPTIONFLEET_REQUIRE_KEYS must be 1"
            )
        return self


def _named_model(entry: str) -> str:
    """Give a bare ``hf:`` entry the name that its last part makes."""
    if not entry.startswith(HUGGING_FACE):
        return entry
    last = entry.removeprefix(HUGGING_FACE).partition("@")[0].rstrip("/").rpartition("/")[2]
    return f"{re.sub(r'[^a-z0-9._-]+', '-', last.lower()).strip('-.')[:64] or 'model'}={entry}"


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or to call, is this machine alone.

    Names are not, but localhost: one such as 127.evil.example leads wherever its owner wants.
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """Read the environment (and ``overrides``, by field); one-line ``StartupError`` if it cannot work."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartupError("configuration_invalid", _one_line(error)) from error


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    location = ".".join(str(part) for part in first["loc"])
    return f"{location}: {message}" if location else message

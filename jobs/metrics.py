"""Everything that is counted outside HTTP, named as Prometheus does; docs/observability.md explains each.

Labels hold what operators configure and what the code can say, never owners, names, captions, keys.
"""

from __future__ import annotations

import threading
import time

from jobs.errors import DatabaseUnavailable, ItemCode
from jobs.meters import Counter, Gauge, Histogram, Level, Meters
from jobs.settings import Settings
from jobs.store import Store

FLEET = Meters()
"""What the database knows of the whole fleet; every API process says the same."""
BACKGROUND = Meters()
"""Of what runs in every process."""
WORKER = Meters()
"""Of a process that captions."""
EVENTS = Meters()
"""Of the consumer of bucket events."""

DATABASE_UP = Gauge(FLEET, "captionfleet_database_up", "Whether the database answered, 1 or 0.")
BACKLOG_IMAGES = Gauge(FLEET, "captionfleet_backlog_images", "Images of unfinished jobs.", "model")
BACKLOG_SECONDS = Gauge(
    FLEET, "captionfleet_backlog_seconds", "Seconds one worker would need for the backlog.", "model"
)
OLDEST_JOB_SECONDS = Gauge(
    FLEET, "captionfleet_oldest_job_age_seconds", "Age of the oldest unfinished job; 0 without one.", "model"
)
WORKERS_ALIVE = Gauge(FLEET, "captionfleet_workers_alive", "Workers seen in the last seconds.", "model")
WEBHOOKS_WAITING = Gauge(
    FLEET, "captionfleet_webhooks_waiting", "Events that wait to be sent, or sent again."
)
WEBHOOKS_OLDEST_SECONDS = Gauge(
    FLEET, "captionfleet_webhooks_oldest_age_seconds", "Age of the oldest event that waits; 0 without one."
)

WEBHOOK_TRIES = Counter(
    BACKGROUND,
    "captionfleet_webhook_tries_total",
    "Tries to send an event: delivered, failed for good, or postponed to another try.",
    ["outcome"],
    [("delivered",), ("failed",), ("postponed",)],
)
CHUNKS_RECOVERED = Counter(
    BACKGROUND, "captionfleet_chunks_recovered_total", "Chunks taken from workers that had gone silent."
)
MESSAGES_REPEATED = Counter(
    BACKGROUND, "captionfleet_messages_repeated_total", "Messages sent again because they seemed lost."
)

STAGES = ("fetch", "decode", "wait", "caption", "record")
INFO = Gauge(
    WORKER,
    "captionfleet_worker_info",
    "The model this process serves; always 1.",
    "model",
    "version",
    "device",
)
IMAGES = Counter(
    WORKER,
    "captionfleet_worker_images_total",
    "Images whose outcome was recorded.",
    ["outcome"],
    [("succeeded",), ("failed",)],
)
FAILURES = Counter(
    WORKER,
    "captionfleet_worker_failures_total",
    "Failed images by error code.",
    ["code"],
    [(code.value,) for code in ItemCode],
)
STAGE_SECONDS = Counter(
    WORKER,
    "captionfleet_worker_stage_seconds_total",
    "Seconds spent in a stage, added up over its places; its rate is how many places are occupied.",
    ["stage"],
    [(stage,) for stage in STAGES],
)
STAGE_PLACES = Level(
    WORKER,
    "captionfleet_worker_stage_places",
    "How much a stage can do at once: threads, processes, or images that may wait.",
    ["stage"],
    [(stage,) for stage in STAGES],
)
CHUNKS_IN_HAND = Level(WORKER, "captionfleet_worker_chunks_in_hand", "Chunks claimed and not finished.")
BATCH_IMAGES = Histogram(
    WORKER,
    "captionfleet_worker_batch_images",
    "Images in a batch.",
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_PLACES = Counter(
    WORKER,
    "captionfleet_worker_batch_places_total",
    "Images that the batches could have held: what the sum of batch images is to be compared with.",
)
CACHE_LOOKUPS = Counter(
    WORKER,
    "captionfleet_worker_cache_lookups_total",
    "Images looked up in the cache.",
    ["result"],
    [("hit",), ("miss",)],
)
DECODE_STARTS = Counter(
    WORKER, "captionfleet_worker_decode_starts_total", "Decoding processes started, the first ones included."
)
DECODE_CRASHES = Counter(
    WORKER,
    "captionfleet_worker_decode_crashes_total",
    "Decoding processes that died on an image or were ended because it took too long.",
)
GPU_MEMORY = Gauge(
    WORKER,
    "captionfleet_worker_gpu_memory_bytes",
    "Memory of the GPU: allocated by tensors, reserved by this process, used by anybody, total.",
    "device",
    "state",
)

EVENT_MESSAGES = Counter(
    EVENTS,
    "captionfleet_events_messages_total",
    "Messages of the events queue: taken, or put aside as dead letters.",
    ["outcome"],
    [("taken",), ("dead_letter",)],
)
EVENT_OBJECTS = Counter(
    EVENTS, "captionfleet_events_objects_total", "New objects that became images of jobs."
)
EVENT_WAITS = Counter(
    EVENTS, "captionfleet_events_waits_total", "Times the consumer paused because a dependency was away."
)

GROUPS = (FLEET, BACKGROUND, WORKER, EVENTS)


class FleetReadings:
    """Looks the fleet's gauges up, at most once in some seconds however often it is asked."""

    FRESH_S = 5.0

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._lock = threading.Lock()
        self._read_at = float("-inf")

    def refresh(self) -> None:
        """Set the gauges; while the database is away only ``captionfleet_database_up`` has a value."""
        with self._lock:
            if time.monotonic() - self._read_at < self.FRESH_S:
                return
            try:
                self._read()
                DATABASE_UP.put(1)
            except DatabaseUnavailable:
                for meter in FLEET.declared:
                    if isinstance(meter, Gauge):
                        meter.clear()
                DATABASE_UP.put(0)
            self._read_at = time.monotonic()

    def _read(self) -> None:
        for backlog in self._store.backlog.of_models(self._settings.model_names):
            BACKLOG_IMAGES.put(backlog.images, backlog.model)
            BACKLOG_SECONDS.put(backlog.seconds(self._settings.expected_rate), backlog.model)
            OLDEST_JOB_SECONDS.put(backlog.oldest_s, backlog.model)
            WORKERS_ALIVE.put(backlog.workers, backlog.model)
        waiting, oldest_s = self._store.webhooks.waiting()
        WEBHOOKS_WAITING.put(waiting)
        WEBHOOKS_OLDEST_SECONDS.put(oldest_s)

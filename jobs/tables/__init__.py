"""The tables. The database is the truth; everything else (messages, caches, memory) is a hint."""

from jobs.tables.access import ApiKeyRow, DeliveryRow, GrantRow, SessionRow, UsageRow, WebhookSecretRow
from jobs.tables.base import Base, UtcDateTime
from jobs.tables.fleet import LeaseRow, SchemaFloorRow, WorkerRow
from jobs.tables.intake import BucketEventRow, DirectUploadRow, IdempotencyRow, RuleRow, UploadRow
from jobs.tables.work import CachedCaptionRow, ChunkRow, ExpansionRow, ItemRow, JobRow, OutputRow

__all__ = [
    "ApiKeyRow",
    "Base",
    "BucketEventRow",
    "CachedCaptionRow",
    "ChunkRow",
    "DeliveryRow",
    "DirectUploadRow",
    "ExpansionRow",
    "GrantRow",
    "IdempotencyRow",
    "ItemRow",
    "JobRow",
    "LeaseRow",
    "OutputRow",
    "RuleRow",
    "SchemaFloorRow",
    "SessionRow",
    "UploadRow",
    "UsageRow",
    "UtcDateTime",
    "WebhookSecretRow",
    "WorkerRow",
]

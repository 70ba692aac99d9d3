"""Every error a user can meet, with its stable code.

``RequestError`` refuses a request, ``ItemError`` ends one image, ``TransientError`` is retried,
``StartupError`` stops a process before it serves anything.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus


class CaptionfleetError(Exception):
    """Base of all errors with a stable code."""

    code: str

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


REQUEST_STATUS: dict[str, HTTPStatus] = {
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "model_not_available": HTTPStatus.BAD_REQUEST,
    "upload_incomplete": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "job_not_found": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "not_acceptable": HTTPStatus.NOT_ACCEPTABLE,
    "idempotency_conflict": HTTPStatus.CONFLICT,
    "idempotency_in_progress": HTTPStatus.CONFLICT,
    "job_state_conflict": HTTPStatus.CONFLICT,
    "job_not_finished": HTTPStatus.CONFLICT,
    "upload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too_many_images": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "quota_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
}


class RequestError(CaptionfleetError):
    """A request that is refused; ``code`` is a key of ``REQUEST_STATUS``."""

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(code, message)
        self.status = REQUEST_STATUS[code]
        self.retry_after = retry_after


class ItemCode(StrEnum):
    """Why one image has no caption."""

    OBJECT_NOT_FOUND = "object_not_found"
    ACCESS_DENIED = "access_denied"
    URL_FORBIDDEN = "url_forbidden"
    DOWNLOAD_FAILED = "download_failed"
    UNSUPPORTED_FORMAT = "unsupported_format"
    IMAGE_CORRUPT = "image_corrupt"
    IMAGE_TOO_LARGE = "image_too_large"
    CAPTION_FAILED = "caption_failed"
    MODEL_OUT_OF_MEMORY = "model_out_of_memory"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"


class ItemError(CaptionfleetError):
    """One image cannot be captioned; stored on the item."""

    def __init__(self, code: ItemCode, message: str) -> None:
        super().__init__(code.value, message)


class TransientError(CaptionfleetError):
    """A dependency is away; the work is released and tried again (503 and ``Retry-After`` at the API)."""


class StorageUnavailable(TransientError):
    """The object store does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__("storage_unavailable", message)


class DatabaseUnavailable(TransientError):
    """The database does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__("database_unavailable", message)


class RowsLocked(DatabaseUnavailable):
    """Somebody else kept rows locked for longer than anyone waits; the database itself answers."""


class BrokerUnavailable(TransientError):
    """The broker does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__("broker_unavailable", message)


STARTUP_CODES = ("configuration_invalid", "checkpoint_invalid", "schema_outdated")


class StartupError(CaptionfleetError):
    """The process cannot start; ``code`` is one of ``STARTUP_CODES`` (exit status 2, one line)."""

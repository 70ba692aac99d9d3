"""What one submission may bring: judged before anything is stored, and image by image as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.body import RequestBody
from api.routes import Call
from jobs.errors import RequestError
from jobs.limits import Limits, images_per_job
from jobs.store.usage import Usage, bytes_used_up, images_used_up


@dataclass(frozen=True)
class Allowance:
    """The limits of a caller, and how much of them is used up."""

    limits: Limits
    images_per_job: int
    # None: no quota has to be asked for.
    usage: Usage | None

    def check_start(self, body: RequestBody, *, stores: bool) -> None:
        """Raise ``RequestError`` quota_exceeded where nothing more can be accepted; cap the body."""
        if self.usage is None:
            return
        size = (body.announced or 1) if stores else 0
        self.usage.check(self.limits, size=size)
        if stores and self.limits.bytes_per_day is not None:
            body.cap(self.limits.bytes_per_day - self.usage.bytes, bytes_used_up(self.limits))

    def check_images(self, count: int) -> None:
        """Raise ``RequestError`` too_many_images or quota_exceeded for a job of so many images."""
        if count > self.images_per_job:
            raise RequestError("too_many_images", f"a job holds at most {self.images_per_job} images")
        most = self.limits.images_per_day
        if self.usage is not None and most is not None and self.usage.images + count > most:
            raise images_used_up(self.limits)


def allowance(call: Call[Any]) -> Allowance:
    """Return what a caller's next job may bring."""
    limits = call.limits
    quotas = (limits.concurrent_jobs, limits.images_per_day, limits.bytes_per_day)
    asked = any(quota is not None for quota in quotas)
    usage = call.services.store.usage.of(call.owner) if asked else None
    return Allowance(limits, images_per_job(call.services.settings.max_images, limits), usage)

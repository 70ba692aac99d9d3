"""What a worker's parent tells each child, in one line on its standard input.

Not on its command line, which everybody can see: settings hold secrets.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from jobs.ids import new_worker_id
from jobs.settings import Settings

MOST_BEFORE = 5


class Life(BaseModel):
    """A child that has died: the worker that it was, and whether it crashed or was killed from outside."""

    worker_id: str
    crashed: bool


class Orders(BaseModel):
    """The model to serve, the settings, who to be, and who died before and may have left chunks behind."""

    model: str
    settings: Settings
    worker_id: str = Field(default_factory=new_worker_id)
    before: list[Life] = []

    def after(self, *, crashed: bool) -> Self:
        """Return the orders for the next child, now that this one has died.

        One that died early did not come to free what those before it had; recovering twice does no harm.
        """
        before = [*self.before, Life(worker_id=self.worker_id, crashed=crashed)][-MOST_BEFORE:]
        return self.model_copy(update={"worker_id": new_worker_id(), "before": before})

    def line(self) -> bytes:
        """Return them as one line of JSON."""
        return self.model_dump_json().encode() + b"\n"

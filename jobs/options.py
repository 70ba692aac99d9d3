"""What no job may ask of any model, said before its images are taken."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.errors import RequestError
from jobs.records import CaptionOptions
from jobs.store.workers import Worker


def check_options(options: CaptionOptions) -> None:
    """Raise ``RequestError`` invalid_request where options contradict each other."""
    sampling = options.top_p is not None or options.temperature is not None
    if sampling and (options.num_beams or 1) > 1:
        raise _refused("num_beams", "searches, top_p and temperature sample: give one or the other")
    if options.seed is not None and not sampling:
        raise _refused("seed", "is for sampling: give top_p or temperature too")
    if (
        not sampling
        and options.num_captions
        and options.num_beams
        and options.num_captions > options.num_beams
    ):
        raise _refused("num_captions", "is larger than options.num_beams")
    if options.min_length and options.max_length and options.min_length > options.max_length:
        raise _refused("min_length", "is larger than options.max_length")


def check_prompt(model: str, workers: Iterable[Worker]) -> None:
    """Raise ``RequestError`` invalid_request where workers serve the model and none of them takes a prompt.

    While no worker is known, the job is taken; its images then fail with the reason.
    """
    serving = [worker for worker in workers if worker.model == model]
    if serving and not any(worker.takes_prompt for worker in serving):
        raise _refused("prompt", f"is nothing the model {model!r} takes; GET /v1/models says which ones do")


def _refused(option: str, why: str) -> RequestError:
    return RequestError("invalid_request", f"options.{option} {why}")

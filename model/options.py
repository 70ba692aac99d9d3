"""What a caption may be asked to be: bounds of the decoding options, and how they complete each other."""

from __future__ import annotations

import dataclasses
from typing import Any

from model.captioner import DecodingOptions
from model.errors import InvalidOptions

MAX_BEAMS = 5
MAX_LENGTH = 50
SAMPLING = {"top_p": 0.9, "temperature": 1.0, "seed": 0}
"""What sampling takes where an option of it is left out."""

_REAL: dict[str, tuple[float, float]] = {
    "length_penalty": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "temperature": (0.1, 2.0),
}


def resolve_options(options: DecodingOptions, defaults: DecodingOptions) -> DecodingOptions:
    """Fill what ``options`` leaves out from a model's ``defaults``; raise ``InvalidOptions``.

    A ``top_p`` or a ``temperature`` asks for sampling, which has no beams; else the search has no seed.
    """
    given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    if "top_p" in given or "temperature" in given:
        if given.get("num_beams", 1) != 1:
            raise InvalidOptions("num_beams searches, top_p and temperature sample: give one or the other")
        given = {**SAMPLING, **given, "num_beams": 1}
    elif "seed" in given:
        raise InvalidOptions("a seed is for sampling: give top_p or temperature too")
    elif "num_captions" in given and "num_beams" not in given:
        # Asking for three captions alone should work: the beams follow.
        given["num_beams"] = min(max(defaults.num_beams or 1, given["num_captions"]), MAX_BEAMS)
    if "max_length" in given and "min_length" not in given:
        given["min_length"] = min(defaults.min_length or 0, given["max_length"])
    resolved = dataclasses.replace(defaults, **given)
    check_options(resolved)
    return resolved


def check_options(options: DecodingOptions) -> None:
    """Raise ``InvalidOptions`` where a resolved option is out of its bounds."""
    sampling = options.top_p is not None
    most = MAX_BEAMS if sampling else options.num_beams
    whole = {
        "num_beams": (1, MAX_BEAMS),
        "num_captions": (1, most),
        "max_length": (1, MAX_LENGTH),
        "min_length": (0, options.max_length),
        **({"seed": (0, 2**31 - 1)} if sampling else {}),
    }
    for name, (low, high) in whole.items():
        value: Any = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= (high or 0):
            raise InvalidOptions(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    for name, (least, largest) in _REAL.items():
        value = getattr(options, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and least <= value <= largest):
            raise InvalidOptions(f"{name} must be a number from {least:g} to {largest:g}, not {value!r}")

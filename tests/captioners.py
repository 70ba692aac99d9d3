"""A captioner whose behaviour a picture's colour decides, and the pictures for it."""

from __future__ import annotations

import ctypes
import json
import threading
import time
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.captioner import Caption, DecodingOptions, Pixels, Preprocessing
from model.errors import InvalidOptions, ModelOutOfMemory
from tests.pictures import encode


class Behaviour(IntEnum):
    """What captioning a picture does; it is the picture's red."""

    CAPTION = 0
    FAIL = 10
    EMPTY = 20
    LOOP = 30
    NOT_A_NUMBER = 40
    OUT_OF_MEMORY = 50
    SEGFAULT = 60
    HANG = 70
    BREAK = 80


def colour_png(number: int, behaviour: Behaviour = Behaviour.CAPTION) -> bytes:
    """Make a one-coloured PNG that is captioned ``picture <number>`` (below 65,536), or misbehaves."""
    return encode(Image.new("RGB", (40, 30), (behaviour, number >> 8, number & 255)), "PNG")


def pixels(number: int, behaviour: Behaviour = Behaviour.CAPTION) -> Pixels:
    """Network input of the picture that ``colour_png`` makes."""
    return np.full((16, 16, 3), (behaviour, number >> 8, number & 255), dtype=np.uint8)


@dataclass
class ColourCaptioner:
    """A ``Captioner`` that reads colours; ``memory`` is the largest batch that fits."""

    name: str = "colours-1"
    digest: str = "0" * 64
    device: str = "cpu"
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(16, 16))
    takes_prompt: bool = False
    memory: int = 1000
    seconds_per_batch: float = 0.0
    broken: bool = False
    batches: list[list[int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: every batch waits for it."""

    def __post_init__(self) -> None:
        self.gate.set()

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """Take at most three captions an image."""
        if (options.num_captions or 1) > 3:
            raise InvalidOptions("num_captions must be a whole number from 1 to 3")
        return replace(options, num_beams=options.num_beams or 1, num_captions=options.num_captions or 1)

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption each image by its colour."""
        self.gate.wait()
        colours = images[:, 0, 0].astype(int)
        self.batches.append([int(green * 256 + blue) for _, green, blue in colours])
        if len(images) > self.memory:
            raise ModelOutOfMemory(f"{len(images)} images do not fit")
        time.sleep(self.seconds_per_batch)
        if self.broken:
            raise RuntimeError("the device is lost")
        return [self._caption(int(red), int(green * 256 + blue), options) for red, green, blue in colours]

    def _caption(self, red: int, number: int, options: DecodingOptions) -> list[Caption]:
        good = [Caption(f"picture {number}", -0.5 - rank) for rank in range(options.num_captions or 1)]
        if red == Behaviour.FAIL:
            raise ValueError(f"picture {number} cannot be captioned")
        if red == Behaviour.OUT_OF_MEMORY:
            raise ModelOutOfMemory("too much for this device")
        if red == Behaviour.SEGFAULT:
            ctypes.string_at(0)
        if red == Behaviour.HANG:
            threading.Event().wait()
        if red == Behaviour.BREAK:
            self.broken = True
            raise RuntimeError("the device is lost")
        bad = {
            Behaviour.EMPTY: [Caption("", -0.1)],
            Behaviour.LOOP: [Caption("a large large large dog", -0.1)],
            Behaviour.NOT_A_NUMBER: [Caption("a dog", float("nan"))],
        }
        return bad.get(Behaviour(red), good) if red in bad else good


@dataclass
class SteeredCaptioner(ColourCaptioner):
    """A ``ColourCaptioner`` in another process, told by the file ``steering`` (JSON) what to do meanwhile.

    ``{"memory": 4}``: larger batches do not fit. ``{"block": [7]}`` or ``{"block": true}``: a batch with that
    picture, or any, waits until the file says otherwise; the file ``<steering>.blocked`` says that one does.
    """

    steering: str = ""

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Caption each image by its colour, once nothing stands in the way."""
        numbers = {int(green) * 256 + int(blue) for _, green, blue in images[:, 0, 0]}
        while self._blocks(numbers, self._orders().get("block", [])):
            Path(f"{self.steering}.blocked").touch()
            time.sleep(0.02)
        self.memory = self._orders().get("memory", 1000)
        return super().caption(images, options)

    def _blocks(self, numbers: set[int], block: list[int] | bool) -> bool:
        return block if isinstance(block, bool) else not numbers.isdisjoint(block)

    def _orders(self) -> dict[str, Any]:
        path = Path(self.steering)
        return dict(json.loads(path.read_text())) if path.exists() else {}

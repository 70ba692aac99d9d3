"""Images and models: what kills a decoder, a worker or the device's memory, and what cannot be captioned."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass

from tests.captioners import Behaviour
from tests.chaos.cluster import SIDE_JOB_IMAGES, FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.faults.workers import pause, stop_decoding


@dataclass(frozen=True)
class Special:
    """A job with one image, somewhere, that the model cannot caption: only that image fails."""

    name: str
    behaviour: Behaviour

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.servers["s3"]:
            special = {rng.randrange(SIDE_JOB_IMAGES): self.behaviour}
            cluster.submit_pictures(SIDE_JOB_IMAGES, special)


@dataclass(frozen=True)
class DecoderDies:
    """A decoding process ends with an image in hand: by a crash, which costs that image, or from outside."""

    name: str
    number: signal.Signals

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            victim, *others = rng.sample(found := stop_decoding(cluster, host), len(found))
            if self.number == signal.SIGSEGV:
                cluster.sacrificed["image_corrupt"] += 1
            host.signal(victim, self.number)
            for pid in (victim, *others):
                host.signal(pid, signal.SIGCONT)


class DeviceMemory:
    """The device has room for two images at a time, for a while."""

    name = "model out of memory"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host, host.steered(memory=2):
            cluster.wait_at_work(host)
            pause(rng.uniform(2, 4))


FAULTS: list[Fault] = [
    DeviceMemory(),
    Special("image too large for the model", Behaviour.OUT_OF_MEMORY),
    Special("model raises on an image", Behaviour.FAIL),
    Special("model returns NaN", Behaviour.NOT_A_NUMBER),
    Special("model returns an empty text", Behaviour.EMPTY),
    Special("image segfaults the worker", Behaviour.SEGFAULT),
    DecoderDies("segfault in a decoding process", signal.SIGSEGV),
    DecoderDies("decoding process kill -9", signal.SIGKILL),
]

"""What people would run instead, on the same machine and photos: transformers, plain torch, the ancestor.

Networks of true size with random weights; every caption is forced to 20 steps, so that all do the same work.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, Setting
from benchmarks.machine import describe_machine
from model.captioner import Captioner, DecodingOptions
from model.encoder_base import GridEncoder
from model.images import read_image
from model.loading import load_captioner
from model.networks import Network

STEPS = 20
ROUNDS = 3
FORCED = DecodingOptions(num_beams=1, min_length=STEPS, max_length=STEPS)


@dataclass(frozen=True)
class Peer:
    """A way to caption: a function that captions photos from memory, and how many it is given a round."""

    name: str
    caption: Callable[[list[bytes]], object]
    images: int


def ours(name: str, captioner: Captioner, batch: int, images: int) -> Peer:
    """Our own captioner: decoded as a worker's child does, captioned in batches."""

    def caption(files: list[bytes]) -> None:
        for at in range(0, len(files), batch):
            pixels = [read_image(data, captioner.preprocessing).pixels for data in files[at : at + batch]]
            captioner.caption(np.stack(pixels), FORCED)

    return Peer(name, caption, images)


def make_blip(folder: Path) -> Path:
    """Write a checkpoint of BLIP-base's sizes (247 million parameters) with random weights."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    config = BlipConfig()
    words = [*special, *(f"word{number}" for number in range(config.text_config.vocab_size - len(special)))]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    config.text_config.bos_token_id, config.text_config.sep_token_id = 5, 3
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(), tokenizer).save_pretrained(folder)
    return folder


def transformers_loop(folder: Path, batch: int) -> Peer:
    """What a user of transformers writes: a loop over files, one image or some of them a call."""
    import transformers

    processor: Any = transformers.AutoProcessor.from_pretrained(folder)
    model: Any = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()

    def caption(files: list[bytes]) -> None:
        for at in range(0, len(files), batch):
            photos = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[at : at + batch]]
            inputs = processor(images=photos, return_tensors="pt")
            with torch.no_grad():
                found = model.generate(**inputs, min_new_tokens=STEPS, max_new_tokens=STEPS)
            processor.batch_decode(found, skip_special_tokens=True)

    how = f"batches of {batch}" if batch > 1 else "one by one"
    return Peer(f"transformers BLIP-base, {how}", caption, max(batch, 3))


def same_sizes(model: str) -> tuple[GridEncoder, Network]:
    """Make the encoder of a model and a network of its sizes, whose random weights end no caption early."""
    from model.networks import build_network
    from model.starting_point import load_start

    start = load_start(model)
    return start.encoder.eval(), build_network(start.network.shape).eval()


def plain_torch(model: str) -> Peer:
    """The shipped network run the plain way: Pillow decodes in full, torch fp32 in batches of 32."""
    from model.sampling import draw

    encoder, network = same_sizes(model)
    side = encoder.size

    def decode(data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data)) as photo:
            return photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)

    @torch.no_grad()
    def caption(files: list[bytes]) -> None:
        pixels = torch.from_numpy(np.stack([np.asarray(decode(data)) for data in files]))
        draw(network, encoder(pixels), 1, STEPS, None)

    return Peer("the same network in plain torch, batches of 32", caption, 32)


class _Ancestor(torch.nn.Module):
    """ResNet-50's pooled vector beside two GRU-512 over the words so far, one word at a time."""

    def __init__(self, words: int = 5000) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        self.encoder = ResNetModel(ResNetConfig())
        self.picture = torch.nn.Linear(2048, 512)
        self.embedding = torch.nn.Embedding(words, 512)
        self.gru = torch.nn.GRU(512, 512, num_layers=2, batch_first=True)
        self.words = torch.nn.Linear(1024, words)

    def forward(self, pixels: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Return the next word's scores, the picture encoded and the whole prefix read anew."""
        seen = self.picture(self.encoder(pixels).pooler_output.flatten(1))
        read, _ = self.gru(self.embedding(prefix))
        return self.words(torch.cat([seen, read[:, -1]], -1))  # type: ignore[no-any-return]


def ancestor() -> Peer:
    """The way of the first captioning tutorials: one image, everything run again for every word."""
    network = _Ancestor().eval()

    @torch.no_grad()
    def caption(files: list[bytes]) -> None:
        for data in files:
            with Image.open(io.BytesIO(data)) as photo:
                small = np.asarray(photo.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
            pixels = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            prefix = torch.ones(1, 1, dtype=torch.long)
            for _ in range(STEPS):
                prefix = torch.cat([prefix, network(pixels, prefix).argmax(-1, keepdim=True)], 1)

    return Peer("ResNet-50 + GRU, one by one, all of it per word", caption, 2)


@dataclass
class Measured:
    """A peer's images/s in every round, and its seconds of processor time per image."""

    rates: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def compare(peers: list[Peer], files: list[bytes], rounds: int) -> dict[str, Measured]:
    """Measure every peer in every round; each round runs all, since the machine's speed drifts."""
    found = {peer.name: Measured() for peer in peers}
    endless = itertools.cycle(files)
    for number in range(rounds + 1):
        for peer in peers:
            given = list(itertools.islice(endless, peer.images if number else min(peer.images, 2)))
            began, processor = time.perf_counter(), time.process_time()
            peer.caption(given)
            if number:
                found[peer.name].rates.append(len(given) / (time.perf_counter() - began))
                found[peer.name].processor.append((time.process_time() - processor) / len(given))
    return found


def figures(setting: Setting, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Measure all peers and what the shipped model and our BLIP are against them."""
    files = [path.read_bytes() for path in sorted(setting.photos.glob("*.jpg"))[: setting.images]]
    with tempfile.TemporaryDirectory(prefix="captionfleet-peers-") as folder:
        blip = make_blip(Path(folder))
        mine, worker = "shipped model, batches of 32", "BLIP-base by our captioner, batches of 16"
        peers = [
            ours(mine, load_captioner(setting.model), 32, 64),
            ours(worker, load_captioner(f"hf:{blip}"), 16, 16),
            transformers_loop(blip, 1),
            plain_torch(setting.model),
            ancestor(),
            transformers_loop(blip, 16),
        ]
        measured = compare(peers, files, rounds)
    for name, found in measured.items():
        note = f"{STEPS} steps, 1 beam; {statistics.median(found.processor) * 1000:.0f} ms of processor time"
        yield Figure(name, statistics.median(found.rates), "images/s", note=note)
    user, torch_way, first, batched = (peer.name for peer in peers[2:])
    for over, under, goal in (
        (mine, user, ">= 300"),
        (worker, user, ">= 2"),
        (mine, torch_way, ">= 6"),
        (mine, first, ""),
        (worker, batched, ""),
    ):
        one, other = measured[over], measured[under]
        ratio = statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))
        work = statistics.median(b / a for a, b in zip(one.processor, other.processor, strict=True))
        note = f"by processor time {work:.2f}"
        yield Figure(f"{over.partition(',')[0]} / {under}", ratio, goal=goal, note=note)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[1] / "examples" / "photos")
    parser.add_argument("--images", type=int, default=64, help="distinct photos")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(describe_machine())
    setting = Setting(given.model, given.photos, given.images, seconds=1.0, profiles=Path())
    for figure in figures(setting, given.rounds):
        goal = {None: "", True: "met", False: "MISSED"}[figure.met]
        print(f"{figure.name:70} {figure.value:10.2f} {figure.unit:9} {figure.goal} {goal} {figure.note}")


if __name__ == "__main__":
    main()

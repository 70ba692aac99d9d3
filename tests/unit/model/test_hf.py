"""Hugging Face captioners on small checkpoints of the true classes: parity, prompts, isolation, damage."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from jobs.errors import ItemCode, ItemError
from model.captioner import Caption, DecodingOptions, Pixels
from model.errors import CheckpointInvalid, InvalidOptions, ModelOutOfMemory
from model.images import read_image
from model.loading import load_captioner
from tests.checkpoints import FAMILIES, make_checkpoint
from worker.forward import Entry, Forward
from worker.watchdog import Watchdog

PHOTOS = sorted((Path(__file__).resolve().parents[3] / "examples/photos").glob("*.jpg"))
PROMPTED = [family for family in FAMILIES if family != "vit-gpt2"]


@pytest.fixture(scope="session", autouse=True)
def clean_up() -> Iterator[None]:
    yield
    shutil.rmtree(_scratch(), ignore_errors=True)


@cache
def _scratch() -> Path:
    return Path(mkdtemp(prefix="captionfleet-hf-"))


@cache
def _folder(family: str) -> Path:
    return make_checkpoint(family, _scratch() / family)


def _varied(model: Any) -> Any:
    """Keep random weights from saying one word over and over."""
    for part in (model, getattr(model, "text_decoder", None), getattr(model, "language_model", None)):
        if getattr(part, "generation_config", None) is not None:
            part.generation_config.no_repeat_ngram_size = 2
    return model


@cache
def _captioner(family: str) -> Any:
    captioner = load_captioner(f"hf:{_folder(family)}", threads=1)
    _varied(captioner._model)  # type: ignore[attr-defined]
    return captioner


def _png(path: Path) -> bytes:
    small = io.BytesIO()
    with Image.open(path) as photo:
        photo.convert("RGB").resize((80, 60)).save(small, "PNG")
    return small.getvalue()


def _pictures(captioner: Any, count: int) -> Pixels:
    return np.stack([read_image(_png(path), captioner.preprocessing).pixels for path in PHOTOS[:count]])


def _texts(found: Sequence[Sequence[Caption]]) -> list[list[str]]:
    return [[caption.text for caption in one] for one in found]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(max_length=8),
        DecodingOptions(num_beams=3, num_captions=2, max_length=6, min_length=3),
        DecodingOptions(top_p=0.95, num_captions=2, max_length=6, seed=4),
    ],
    ids=["greedy", "beams", "samples"],
)
def test_a_batch_says_what_its_images_say_alone(family: str, options: DecodingOptions) -> None:
    captioner = _captioner(family)
    pixels = _pictures(captioner, 4)
    together = captioner.caption(pixels, options)
    alone = [captioner.caption(pixels[n : n + 1], options)[0] for n in range(4)]
    assert _texts(together) == _texts(alone)
    scores = [[c.score for one in found for c in one] for found in (together, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert [len(one) for one in together] == [options.num_captions or 1] * 4
    assert all(-20 < score < 0 for score in scores[0])


def _plainly(family: str, photo: bytes, beams: int) -> tuple[str, float]:
    """What a user of transformers writes for one image, by their processors, and its mean log-probability."""
    folder = _folder(family)
    model = _varied(transformers.AutoModelForImageTextToText.from_pretrained(folder).eval())
    picture = Image.open(io.BytesIO(photo))
    if family == "vit-gpt2":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        inputs = transformers.AutoImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")
    else:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        tokenizer = processor.tokenizer
        text = {"florence2": "<CAPTION>", "git": ""}.get(family)
        if family == "llava":
            asked = [{"type": "image"}, {"type": "text", "text": "Describe this image in one sentence."}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": asked}], add_generation_prompt=True
            )
        inputs = processor(images=picture, text=text, return_tensors="pt")
        if family == "git":
            inputs = {"pixel_values": inputs["pixel_values"], "input_ids": inputs["input_ids"][:, :1]}
    out = model.generate(
        **inputs,
        max_new_tokens=7,
        num_beams=beams,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    steps = len(out.scores)
    chosen = _chosen(out)
    start = out.sequences.shape[1] - min(steps, chosen.numel() if beams > 1 else steps)
    start = inputs["input_ids"].shape[1] if family in ("llava", "git") else start
    text = tokenizer.decode(out.sequences[0, start:], skip_special_tokens=True)
    return " ".join(text.split()), float(chosen.mean())


def _chosen(out: Any) -> torch.Tensor:
    """Log-probability of every chosen token, beam by beam where there are beams."""
    tokens = out.sequences[0, -len(out.scores) :]
    found = []
    for step, scores in enumerate(out.scores):
        row = 0
        if out.get("beam_indices") is not None:
            row = int(out.beam_indices[0, step]) if step < out.beam_indices.shape[1] else -1
            tokens = out.sequences[0, out.sequences.shape[1] - out.beam_indices.shape[1] :]
        if row < 0:
            break
        found.append(scores[row].log_softmax(-1)[tokens[step]])
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_and_scores_are_those_of_transformers_itself(family: str, beams: int) -> None:
    captioner = _captioner(family)
    for path in PHOTOS[:2]:
        pixels = read_image(_png(path), captioner.preprocessing).pixels
        found = captioner.caption(pixels[None], DecodingOptions(num_beams=beams, max_length=7))[0][0]
        text, score = _plainly(family, _png(path), beams)
        assert found.text == text
        # Their crop is of whole pixels.
        cropped = captioner.preprocessing.fit == "crop"
        assert found.score == pytest.approx(score, abs=2e-2 if cropped else 2e-3)


def test_different_pictures_are_captioned_differently() -> None:
    for family in ("blip", "vit-gpt2", "llava"):
        captioner = _captioner(family)
        found = captioner.caption(_pictures(captioner, 8), DecodingOptions(max_length=8))
        assert len({one[0].score for one in found}) > 4, family


@pytest.mark.parametrize("family", PROMPTED)
def test_a_prompt_is_followed(family: str) -> None:
    captioner = _captioner(family)
    assert captioner.takes_prompt
    pixels = _pictures(captioner, 3)
    options = DecodingOptions(prompt="a red ball", max_length=5, top_p=0.9)
    found = captioner.caption(pixels, options)
    assert [text.startswith("a red ball") for one in _texts(found) for text in one] == [
        family in ("blip", "git")
    ] * 3
    assert found != captioner.caption(pixels, DecodingOptions(max_length=5, top_p=0.9))


def test_a_prompt_is_refused_where_the_model_takes_none() -> None:
    captioner = _captioner("vit-gpt2")
    assert not captioner.takes_prompt
    with pytest.raises(InvalidOptions, match="takes no prompt"):
        captioner.resolve(DecodingOptions(prompt="a red ball"))


@pytest.mark.parametrize("family", ["blip", "vit-gpt2", "llava"])
def test_lengths_and_counts_are_as_asked(family: str) -> None:
    captioner = _captioner(family)
    pixels = _pictures(captioner, 2)
    options = DecodingOptions(num_beams=4, num_captions=4, min_length=3, max_length=5)
    found = _texts(captioner.caption(pixels, options))
    assert [len(set(one)) for one in found] == [4, 4]
    assert all(3 <= len(text.split()) <= 5 for one in found for text in one)
    assert captioner.caption(pixels[:0], options) == []
    with pytest.raises(ValueError, match="uint8 of shape"):
        captioner.caption(pixels[:, :-1], options)


def test_sampling_is_by_seed() -> None:
    captioner = _captioner("llava")
    pixels = _pictures(captioner, 3)
    drawn = [
        _texts(captioner.caption(pixels, DecodingOptions(temperature=1.5, seed=seed, max_length=8)))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_samples_come_best_first_and_each_says_something_else() -> None:
    captioner = _captioner("blip")
    pixels = _pictures(captioner, 2)
    same = captioner.caption(pixels, DecodingOptions(top_p=0.01, num_captions=5, max_length=6))
    assert [len(one) for one in same] == [1, 1]
    for one in captioner.caption(pixels, DecodingOptions(top_p=1.0, num_captions=5, max_length=6)):
        scores = [caption.score for caption in one]
        assert len(set(scores)) > 1
        assert scores == sorted(scores, reverse=True)


class Sabotaged:
    """A captioner whose network does something to every batch before it runs."""

    def __init__(self, captioner: Any, spoil: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        self._captioner, self._spoil = captioner, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._captioner, name)

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        def before(_module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            key = "pixel_values"
            values = named.get(key, given[0] if given else None)
            spoiled = self._spoil(values)
            return None if spoiled is None else ((), {**named, key: spoiled})

        hook = self._captioner._model.vision_model.register_forward_pre_hook(before, with_kwargs=True)
        try:
            found: list[list[Caption]] = self._captioner.caption(images, options)
        finally:
            hook.remove()
        return found


def _run(captioner: Any, pixels: Pixels, options: DecodingOptions) -> list[Future[list[Caption]]]:
    watchdog = Watchdog(60)
    forward = Forward(captioner, watchdog, batch_size=8)
    entries = [Entry(one, captioner.resolve(options), time.monotonic()) for one in pixels]
    try:
        forward.run(entries)
    finally:
        watchdog.close()
    return [entry.future for entry in entries]


def test_one_bad_image_costs_itself_alone() -> None:
    captioner = _captioner("blip")
    pixels = _pictures(captioner, 5)
    bad = captioner._pixels(pixels[3:4], torch.device("cpu"), torch.float32)["pixel_values"]
    options = DecodingOptions(max_length=6)

    def fail(values: torch.Tensor) -> None:
        if any(torch.equal(value, bad[0]) for value in values):
            raise RuntimeError("device-side assertion")

    def poison(values: torch.Tensor) -> torch.Tensor:
        same = torch.stack([torch.tensor(torch.equal(value, bad[0])) for value in values])
        return torch.where(same[:, None, None, None], torch.nan, values)

    good = _texts(captioner.caption(pixels, options))
    for spoil in (fail, poison):
        futures = _run(Sabotaged(captioner, spoil), pixels, options)
        with pytest.raises(ItemError) as failed:
            futures[3].result()
        assert failed.value.code == ItemCode.CAPTION_FAILED
        assert [_texts([futures[n].result()])[0] for n in (0, 1, 2, 4)] == [good[n] for n in (0, 1, 2, 4)]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    captioner = _captioner("blip")
    pixels = _pictures(captioner, 5)
    sizes: list[int] = []

    def memory_of_two(values: torch.Tensor) -> None:
        sizes.append(len(values))
        if len(values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    options = DecodingOptions(max_length=6)
    futures = _run(Sabotaged(captioner, memory_of_two), pixels, options)
    assert [_texts([one.result()])[0] for one in futures] == _texts(captioner.caption(pixels, options))
    assert sizes[0] == 5
    assert max(sizes[-2:]) <= 2

    def no_memory(values: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")

    with pytest.raises(ModelOutOfMemory):
        Sabotaged(captioner, no_memory).caption(pixels, options)


def test_a_caption_that_says_nothing_is_the_images_error() -> None:
    captioner = _captioner("blip")
    head = captioner._model.text_decoder.cls.predictions.decoder
    before = head.bias.detach().clone()
    head.bias.data[captioner._model.config.text_config.sep_token_id] = 1e4
    try:
        futures = _run(captioner, _pictures(captioner, 2), DecodingOptions())
    finally:
        head.bias.data.copy_(before)
    for future in futures:
        with pytest.raises(ItemError, match="nothing to say"):
            future.result()


def _damaged(tmp_path: Path, change: Callable[[Path], object]) -> str:
    folder = tmp_path / "damaged"
    shutil.copytree(_folder("blip"), folder)
    change(folder)
    return f"hf:{folder}"


def _without_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if "vision" in name and name.endswith("weight")))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _with_config(**changed: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changed))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 40), "cannot be loaded"),
        (_without_tensor, "the weights lack 1 tensors, such as vision_model"),
        (_with_config(model_type="bert"), "a model of type 'bert' does not caption images"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=message) as refused:
        load_captioner(_damaged(tmp_path, change))
    assert "\n" not in str(refused.value)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    def hide_code(folder: Path) -> None:
        trap = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Config: pass\n"
        (folder / "trap.py").write_text(trap)
        _with_config(model_type="trap", auto_map={"AutoConfig": "trap.Config"})(folder)

    with pytest.raises(CheckpointInvalid, match="cannot be loaded"):
        load_captioner(_damaged(tmp_path, hide_code))
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("reference", ["hf:./missing", "hf:/missing/folder", "hf:no model", "hf:"])
def test_what_is_neither_folder_nor_id_is_refused(reference: str) -> None:
    with pytest.raises(CheckpointInvalid, match="not the id of a model"):
        load_captioner(reference)


def test_a_hub_that_cannot_be_reached_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(CheckpointInvalid, match=r"me/tiny is not on this machine .* give a local folder"):
        load_captioner("hf:me/tiny")
    assert time.monotonic() - began < 30


def test_what_was_downloaded_before_is_used_without_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--me--tiny"
    shutil.copytree(_folder("vit-gpt2"), repository / "snapshots" / commit)
    for name in ("main", "v1"):
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    by_id, by_folder = load_captioner("hf:me/tiny@v1"), load_captioner(f"hf:{_folder('vit-gpt2')}")
    assert by_id.digest == by_folder.digest
    assert by_id.name == f"tiny@{by_id.digest[:8]}"

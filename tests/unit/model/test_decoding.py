"""Beam search on small made-up networks, against enumeration and against a plain greedy loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.beam_captioner import loops
from model.decoding import Ids, NextWords, SearchOptions, WordRules, search
from model.nucleus import SampleOptions, sample
from model.tokenizer import END, START

FIRST = 4  # id of the first word


class TableModel:
    """Next-word chances from a random table: per image, by the last two tokens."""

    def __init__(self, seed: int, images: int, words: int, sharpness: float = 2.0) -> None:
        size = FIRST + words
        logits = np.random.default_rng(seed).normal(0, sharpness, (images, size, size, size))
        logits[..., [0, START, 3]] = -1e9
        self.table = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        self.words = words

    def start(self, images: int, length: int) -> None:
        self.rows = np.arange(images)
        self.before = np.full((images, 1), START)
        self.seen = np.zeros((images, 1), dtype=np.int64)

    def step(self, tokens: Ids) -> NextWords:
        scores = self.table[self.rows[:, None], self.before, tokens].astype(np.float32)
        self.seen = tokens
        ids = np.argsort(-scores, axis=-1, kind="stable")
        return NextWords(np.take_along_axis(scores, ids, -1), ids, scores[..., END])

    def reorder(self, images: Ids, parents: Ids) -> None:
        self.rows = self.rows[images]
        self.before = np.take_along_axis(self.seen[images], parents, 1)

    def score(self, image: int, caption: tuple[int, ...]) -> float:
        tokens = (START, START, *caption, END)
        chances = [
            self.table[image, a, b, c] for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False)
        ]
        return float(np.mean(chances))


def _rules(words: int, function: tuple[int, ...] = (), unfinished: tuple[int, ...] = ()) -> WordRules:
    flags = np.zeros((2, FIRST + words), dtype=np.bool_)
    flags[0, list(function)] = True
    flags[1, list(unfinished)] = True
    return WordRules(flags[0], flags[1])


@pytest.mark.parametrize("seed", range(20))
def test_the_best_caption_is_found_by_enumeration_too(seed: int) -> None:
    model = TableModel(seed, images=3, words=2)
    found = search(model, 3, SearchOptions(5, 3, 2, 0), None)
    for image, hypotheses in enumerate(found):
        every = [c for n in range(3) for c in itertools.product((FIRST, FIRST + 1), repeat=n)]
        best = sorted(every, key=lambda caption: -model.score(image, caption))[:2]
        assert [h.words for h in hypotheses[:2]] == best
        assert hypotheses[0].score == pytest.approx(model.score(image, best[0]), abs=1e-5)


def _greedy(model: TableModel, image: int, limit: int) -> tuple[int, ...]:
    caption: list[int] = []
    before, last = START, START
    while len(caption) < limit:
        word = int(model.table[image, before, last].argmax())
        if word == END:
            break
        caption.append(word)
        before, last = last, word
    return tuple(caption)


def test_one_beam_is_greedy() -> None:
    model = TableModel(1, images=16, words=12)
    found = search(model, 16, SearchOptions(1, 1, 9, 0), None)
    assert [one[0].words for one in found] == [_greedy(model, image, 9) for image in range(16)]
    assert len({len(one[0].words) for one in found}) > 3


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_a_batch_says_what_its_images_say_alone(beams: int) -> None:
    model = TableModel(2, images=24, words=9)
    options, rules = SearchOptions(beams, beams, 12, 1), _rules(9, function=(4, 5), unfinished=(4,))
    together = search(model, 24, options, rules)
    for image in range(24):
        alone = TableModel(2, images=24, words=9)
        alone.table = alone.table[image : image + 1]
        assert search(alone, 1, options, rules)[0] == together[image]


@pytest.mark.parametrize("beams", [1, 3])
def test_blocking_stops_every_kind_of_repeat(beams: int) -> None:
    model = TableModel(3, images=64, words=6, sharpness=3.0)
    rules = _rules(6, function=(4, 5, 6))
    free = [h.words for one in search(model, 64, SearchOptions(beams, 1, 14, 0), None) for h in one]
    bound = [h.words for one in search(model, 64, SearchOptions(beams, 1, 14, 0), rules) for h in one]
    assert any(map(_repeats, free))
    assert not any(map(_repeats, bound))
    repeated_function_pairs = [w for w in bound if len(set(itertools.pairwise(w))) < len(w) - 1]
    assert repeated_function_pairs, "pairs of function words may repeat"


def _repeats(words: tuple[int, ...]) -> bool:
    pairs = list(itertools.pairwise(words))
    content = [pair for pair in pairs if min(pair) > 6]
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return (
        any(a == b for a, b in pairs) or len(set(content)) < len(content) or len(set(triples)) < len(triples)
    )


def test_lengths_are_kept_and_no_caption_ends_unfinished() -> None:
    model = TableModel(4, images=40, words=6)
    found = search(model, 40, SearchOptions(3, 3, 7, 4), _rules(6, function=(4,), unfinished=(4, 5)))
    captions = [h.words for one in found for h in one]
    assert all(4 <= len(words) <= 7 for words in captions)
    assert {len(words) for words in captions} >= {4, 7}
    assert not any(words[-1] in (4, 5) for words in captions if len(words) < 7)
    assert all([h.score for h in one] == sorted((h.score for h in one), reverse=True) for one in found)


def test_a_length_penalty_chooses_between_short_and_long() -> None:
    model = TableModel(5, images=48, words=5)
    lengths = [
        sum(len(one[0].words) for one in search(model, 48, SearchOptions(4, 1, 12, 0, penalty), None))
        for penalty in (0.0, 1.0, 2.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]
    for image, one in enumerate(search(model, 48, SearchOptions(4, 4, 12, 0, 0.0), None)):
        totals = [h.score * (len(h.words) + 1) for h in one]
        assert totals == sorted(totals, reverse=True)
        assert (
            one[0].score == pytest.approx(model.score(image, one[0].words), abs=1e-5)
            or len(one[0].words) == 12
        )


def _draw_one(top_p: float, temperature: float, seed: int) -> list[tuple[int, ...]]:
    model = TableModel(6, images=1, words=4, sharpness=1.0)
    found = sample(model, [seed], SampleOptions(1, 1, 0, top_p, temperature), None)
    return [h.words for h in found[0]]


def test_samples_follow_the_chances_of_the_network() -> None:
    table = TableModel(6, images=1, words=4, sharpness=1.0).table[0, START, START]
    chances = np.exp(table[[END, *range(FIRST, FIRST + 4)]])
    drawn = [_draw_one(1.0, 1.0, seed) for seed in range(1000)]
    seen = np.array([drawn.count([words]) for words in [(), *((FIRST + n,) for n in range(4))]])
    assert seen.sum() == 1000
    assert np.abs(seen / 1000 - chances).max() < 4 * np.sqrt(0.25 / 1000)


def test_a_small_nucleus_or_temperature_is_greedy() -> None:
    model = TableModel(1, images=16, words=12)
    for options in (SampleOptions(1, 9, 0, 0.01, 1.0), SampleOptions(1, 9, 0, 1.0, 0.001)):
        found = sample(model, list(range(16)), options, None)
        assert [one[0].words for one in found] == [_greedy(model, image, 9) for image in range(16)]


def test_samples_do_not_depend_on_what_is_captioned_beside_them() -> None:
    model = TableModel(2, images=24, words=9)
    options, rules = SampleOptions(3, 12, 2, 0.95, 1.2), _rules(9, function=(4, 5), unfinished=(4,))
    together = sample(model, list(range(100, 124)), options, rules)
    for image in range(24):
        alone = TableModel(2, images=24, words=9)
        alone.table = alone.table[image : image + 1]
        assert sample(alone, [100 + image], options, rules)[0] == together[image]
    said = [h.words for one in together for h in one]
    assert all(2 <= len(words) <= 12 for words in said)
    assert len(set(said)) > 60, "different seeds say different things"
    for one in together:
        assert len({h.words for h in one}) == len(one)
    assert sample(model, list(range(24)), options, rules) != together


@pytest.mark.parametrize(
    ("words", "looping"),
    [
        ((5, 5, 5), True),
        ((4, 6, 7, 6, 7, 6, 7), True),
        ((4, 5, 6) * 3, True),
        ((4, 5, 4, 5), False),
        ((), False),
    ],
)
def test_loops_are_seen(words: tuple[int, ...], looping: bool) -> None:
    assert loops(words) is looping

"""Scores of captions against references, and what can be said of captions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from model.english import UNFINISHED_ENDS
from model.java_tools import find_java, meteor, treebank_tokenize
from model.tokenizer import words

Scores = dict[str, float | int | str | None]


def reference_scores(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, with_meteor: bool = True
) -> Scores:
    """Compute BLEU-1 to 4, METEOR, ROUGE-L and CIDEr over a corpus with pycocoevalcap.

    Without Java the tokenizer is a plain one (``tokenizer`` says so) and METEOR is None. METEOR alone takes
    about 10 seconds, most of it to start.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    java = find_java()
    said, expected = _tokenized(captions, references)
    candidates = {name: [said[name]] for name in said}
    bleu, _ = Bleu(4).compute_score(expected, candidates, verbose=0)
    rouge, _ = Rouge().compute_score(expected, candidates)
    cider, _ = Cider().compute_score(expected, candidates)
    scores: Scores = {"tokenizer": "ptb" if java else "plain (no Java found; figures do not compare)"}
    scores |= {f"BLEU-{order}": round(float(value), 4) for order, value in enumerate(bleu, start=1)}
    names = list(said)
    scores["METEOR"] = None
    if java and with_meteor:
        scores["METEOR"] = round(meteor(java, [expected[n] for n in names], [said[n] for n in names]), 4)
    return scores | {"ROUGE-L": round(float(rouge), 4), "CIDEr": round(float(cider), 4)}


def _tokenized(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    names = list(captions)
    flat = [captions[name] for name in names] + [text for name in names for text in references[name]]
    java = find_java()
    tokens = iter(treebank_tokenize(java, flat) if java else [" ".join(words(text)) for text in flat])
    said = {name: next(tokens) for name in names}
    return said, {name: [next(tokens) for _ in references[name]] for name in names}


def text_statistics(captions: Sequence[str]) -> Scores:
    """Count words, distinct words and distinct captions; empty captions are counted too."""
    spoken = [words(caption) for caption in captions]
    return {
        "captions": len(captions),
        "empty": sum(not tokens for tokens in spoken),
        "mean_length": round(sum(map(len, spoken)) / max(len(spoken), 1), 2),
        "vocabulary": len({word for tokens in spoken for word in tokens}),
        "distinct_captions": len(set(captions)),
    }


def fluency(captions: Sequence[str]) -> Scores:
    """Share of captions that end in a preposition, article or conjunction; that repeat a pair of words."""
    spoken = [words(caption) for caption in captions]
    count = max(len(spoken), 1)
    unfinished = sum(bool(tokens) and tokens[-1] in UNFINISHED_ENDS for tokens in spoken)
    repeated = sum(_repeats(tokens) for tokens in spoken)
    return {
        "unfinished_share": round(unfinished / count, 4),
        "repeated_bigram_share": round(repeated / count, 4),
    }


def _repeats(tokens: list[str]) -> bool:
    pairs = list(pairwise(tokens))
    return len(set(pairs)) < len(pairs)

"""Scores of captions against references, and what can be said of captions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.english import UNFINISHED_ENDS
from model.java_tools import find_java, meteor, treebank_tokenize
from model.tokenizer import words

Scores = dict[str, float | int | str | None]


def reference_scores(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    with_meteor: bool = True,
    confidence: Mapping[str, float] | None = None,
) -> Scores:
    """Compute BLEU-1 to 4, METEOR, ROUGE-L and CIDEr over a corpus with pycocoevalcap.

    With the captions' own scores as ``confidence``, also how well these rank the images by their CIDEr.
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
    cider, ciders = Cider().compute_score(expected, candidates)
    scores: Scores = {"tokenizer": "ptb" if java else "plain (no Java found; figures do not compare)"}
    scores |= {f"BLEU-{order}": round(float(value), 4) for order, value in enumerate(bleu, start=1)}
    names = list(said)
    scores["METEOR"] = None
    if java and with_meteor:
        scores["METEOR"] = round(meteor(java, [expected[n] for n in names], [said[n] for n in names]), 4)
    scores |= {"ROUGE-L": round(float(rouge), 4), "CIDEr": round(float(cider), 4)}
    if confidence is not None:
        scores["score vs CIDEr"] = spearman([confidence[name] for name in expected], ciders)
    return scores


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties sharing their mean rank; None where one side is constant."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    if min(float(np.ptp(side)) for side in ranks) == 0:
        return None
    return round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 4)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


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
    """Count words, distinct words and distinct captions, with ``fluency``; empty captions are counted too."""
    spoken = [words(caption) for caption in captions]
    return {
        "captions": len(captions),
        "empty": sum(not tokens for tokens in spoken),
        "mean_length": round(sum(map(len, spoken)) / max(len(spoken), 1), 2),
        "vocabulary": len({word for tokens in spoken for word in tokens}),
        "distinct_captions": len(set(captions)),
        **fluency(captions),
    }


def fluency(captions: Sequence[str]) -> Scores:
    """Share of captions that end in a preposition, article or conjunction; that repeat a pair of words.

    What is an adverb as well ("the dog lies down") may end a caption.
    """
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

"""The encoder's upper part as it is trained, the views of a photo, and the reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.augmentation import view
from model.bleu import SentenceBleu
from model.encoder import EfficientNetLite0, load_pretrained
from model.encoder_base import GridEncoder
from model.encoder_top import EncoderTop
from model.errors import TrainingError
from model.reward import Reward
from model.trained_captioner import check_cache


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    found = load_pretrained("efficientnet-lite0")
    assert isinstance(found, EfficientNetLite0)
    return found


def test_the_trainable_top_gives_the_encoders_features_and_goes_back_into_it(
    encoder: EfficientNetLite0,
) -> None:
    pixels = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    top = EncoderTop(encoder)
    with torch.no_grad():
        lower = encoder.trunk(pixels)
        assert lower.shape == (2, *encoder.trunk_shape)
        torch.testing.assert_close(top(lower), encoder(pixels), atol=1e-4, rtol=0)
        for parameter in top.parameters():
            parameter.mul_(1.01)
        changed = load_pretrained("efficientnet-lite0")
        assert isinstance(changed, EfficientNetLite0)
        top.write_to(changed)
        torch.testing.assert_close(top(lower), changed(pixels), atol=1e-4, rtol=0)
        assert not torch.allclose(changed(pixels), encoder(pixels), atol=1e-2)


def test_only_an_encoder_with_a_trunk_can_be_cut(encoder: EfficientNetLite0) -> None:
    with pytest.raises(TrainingError, match="unknown cache 'pixels'; use features, trunk, none"):
        check_cache(encoder, "pixels")
    with pytest.raises(TrainingError, match="only efficientnet-lite0 has a trunk"):
        check_cache(GridEncoder(), "trunk")


def test_views_are_the_same_every_time_and_of_the_same_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(view(pixels, 0, "a.jpg"), pixels)
    assert np.array_equal(view(pixels, 1, "a.jpg")[:, ::-1], pixels)
    drawn = [view(pixels, number, name) for number in (2, 3) for name in ("a.jpg", "b.jpg")]
    again = [view(pixels, number, name) for number in (2, 3) for name in ("a.jpg", "b.jpg")]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in drawn)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({one.tobytes() for one in [pixels, *drawn]}) == 5


def test_the_reward_takes_repeats_and_unfinished_ends_down() -> None:
    references = [[[5, 6, 7, 8, 9], [5, 6, 7, 8]], [[10, 11, 12], [13, 14, 15]]]
    plain, strict = Reward(references, 12), Reward(references, 12, unfinished=(6,), penalty=0.5)
    assert plain.score(0, [5, 6, 7, 8]) == strict.score(0, [5, 6, 7, 8]) > plain.score(0, [5, 6, 9, 8]) > 0
    for faulty, faults in (([5, 6, 7, 5, 6, 7], 2), ([5, 6], 1), ([5, 6, 5, 6], 2), ([7] * 12, 3)):
        assert strict.score(0, faulty) == pytest.approx(plain.score(0, faulty) - 0.5 * faults)


def test_bleu_counts_each_word_as_often_as_one_reference_has_it_and_smooths_long_grams() -> None:
    bleu = SentenceBleu([[[5, 6, 7, 8, 9], [5, 5, 6]]])
    assert bleu.score(0, [5, 6, 7, 8, 9]) == pytest.approx(1)
    # Words 3 of 4 (5 counts twice at most), pairs (2+1)/(3+1), triples (1+1)/(2+1), fours (0+1)/(1+1).
    expected = math.exp(math.log(3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) / 4)
    assert bleu.score(0, [5, 5, 5, 6]) == pytest.approx(expected)
    assert bleu.score(0, [1, 2]) == 0
    assert bleu.score(0, [5, 6]) == pytest.approx(math.exp(1 - 3 / 2))  # too short
    assert Reward([[[5, 6, 7]]], 9, bleu=0.5).score(0, [5, 6, 7]) == pytest.approx(
        Reward([[[5, 6, 7]]], 9).score(0, [5, 6, 7]) + 0.5
    )

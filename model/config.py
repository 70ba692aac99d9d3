"""Training configurations: small TOML files in ``model/configs`` or anywhere else."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.captioner import DecodingOptions
from model.decoding import SearchOptions
from model.errors import InvalidOptions, TrainingError
from model.options import MAX_LENGTH, check_options

CONFIGS = Path(__file__).parent / "configs"
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a model may be called; the name goes with every caption."""


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, what of it is computed once and kept on disk, and how many views of each photo.

    ``cache`` is "features" (the encoder stays as it is), "trunk" (its upper part can be trained) or "none"
    (photos are read anew each time; all of the encoder can be trained).
    Views: 1 is plain, 2 adds the mirrored picture, more are drawn (``model.augmentation``); without a cache
    any number above 1 draws another view each time.
    """

    name: str
    cache: str
    views: int


@dataclass(frozen=True)
class TokenizerConfig:
    """Words that occur less often than ``min_count`` in the training captions are unknown."""

    min_count: int


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the caption network."""

    width: int
    heads: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    max_length: int
    dropout: float


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of the recurrent caption network (``kind = "gru"``); without attention the grid is pooled."""

    kind: str
    width: int
    attends: bool
    max_length: int
    dropout: float


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The first two phases: predict the next word of the reference captions.

    The encoder, or its upper part, learns too where ``encoder_learning_rate`` is not 0. After ``patience``
    epochs without a better dev CIDEr-D the phase ends; 0 goes on to the last epoch.
    """

    epochs: int
    batch_images: int
    captions_per_image: int
    learning_rate: float
    encoder_learning_rate: float
    warmup_steps: int
    label_smoothing: float
    weight_decay: float
    average: float
    patience: int = 0


@dataclass(frozen=True)
class SelfCriticalConfig:
    """The third phase: raise the reward of sampled captions over that of the image's other samples.

    The reward is CIDEr-D plus ``bleu`` times BLEU-4, less ``fluency_penalty`` for each repeated pair of words
    and for an unfinished end.
    """

    epochs: int
    decay_epochs: int
    batch_images: int
    samples: int
    temperature: float
    bleu: float
    fluency_penalty: float
    learning_rate: float
    encoder_learning_rate: float
    cross_entropy: float
    average: float
    dropout: float = 0.0
    patience: int = 0


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines a training run but the data."""

    name: str
    seed: int
    encoder: EncoderConfig
    tokenizer: TokenizerConfig
    network: NetworkConfig | RecurrentConfig
    cross_entropy: CrossEntropyConfig
    decoding: SearchOptions
    fine_tune: CrossEntropyConfig | None = None
    self_critical: SelfCriticalConfig | None = None
    untuned_critical: SelfCriticalConfig | None = None
    """Self-critical training with the encoder as it came, too: the mean of both models is the end."""

    def identity(self) -> dict[str, Any]:
        """Return all that determines a run as plain data; what was left to its default is left out."""
        found = dataclasses.asdict(self)
        for name in _SECTIONS:
            section = getattr(self, name)
            for field in dataclasses.fields(section) if section else ():
                if getattr(section, field.name) == field.default:
                    del found[name][field.name]
        return found


_SECTIONS: dict[str, type[Any]] = {
    "encoder": EncoderConfig,
    "tokenizer": TokenizerConfig,
    "network": NetworkConfig,
    "cross_entropy": CrossEntropyConfig,
    "decoding": SearchOptions,
    "fine_tune": CrossEntropyConfig,
    "self_critical": SelfCriticalConfig,
    "untuned_critical": SelfCriticalConfig,
}
_SHARES = {"dropout", "label_smoothing", "average"}
_POSITIVE = {
    "views", "width", "heads", "feedforward", "decoder_layers", "max_length", "batch_images",
    "captions_per_image", "samples", "temperature", "decay_epochs",
}  # fmt: skip
_OPTIONAL = {"fine_tune", "self_critical", "untuned_critical"}


def read_config(config: str) -> TrainingConfig:
    """Read a configuration by its name in ``model/configs`` or by path; raises ``TrainingError``."""
    path = Path(config) if config.endswith(".toml") else CONFIGS / f"{config}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
        raise TrainingError(
            f"no configuration {config!r}; there is {known}, or give the path of a .toml file"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise TrainingError(f"{path}: {error}") from error
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], where: str) -> TrainingConfig:
    """Check the keys of every section and build the configuration."""
    known = {"name", "seed", *_SECTIONS}
    wrong = (known ^ set(values)) - (_OPTIONAL - set(values))
    if wrong:
        raise TrainingError(f"{where}: missing or unknown: {', '.join(sorted(wrong))}")
    sections = {
        name: _section(name, _SECTIONS[name], values[name], where) for name in set(values) & set(_SECTIONS)
    }
    name, seed = values["name"], values["seed"]
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        raise TrainingError(f"{where}: name must be letters, digits and . _ -, not {name!r}")
    if not isinstance(seed, int):
        raise TrainingError(f"{where}: seed must be a whole number, not {seed!r}")
    found = TrainingConfig(name=name, seed=seed, **sections)
    _check_together(found, where)
    return found


def _check_together(config: TrainingConfig, where: str) -> None:
    network = config.network
    if isinstance(network, NetworkConfig) and network.width % network.heads:
        raise TrainingError(f"{where}: [network] width must be a multiple of heads")
    if network.max_length < MAX_LENGTH:
        # Requests are checked where no model is at hand: any may be asked for as much.
        message = f"[network] max_length must be {MAX_LENGTH} or more: requests may ask for it"
        raise TrainingError(f"{where}: {message}")
    try:
        check_options(DecodingOptions(**dataclasses.asdict(config.decoding)))
    except InvalidOptions as error:
        raise TrainingError(f"{where}: [decoding] {error}") from error


def _section(name: str, kind: type[Any], values: dict[str, Any], where: str) -> Any:
    if kind is NetworkConfig and values.get("kind") == "gru":
        kind = RecurrentConfig
    fields = dataclasses.fields(kind)
    wanted = {field.name for field in fields}
    optional = {field.name for field in fields if field.default is not dataclasses.MISSING}
    wrong = (wanted ^ set(values)) - (optional - set(values))
    if wrong:
        raise TrainingError(f"{where}: [{name}] missing or unknown: {', '.join(sorted(wrong))}")
    for field in fields:
        value = values.get(field.name)
        if value is not None and not _fits(value, field.type):
            raise TrainingError(f"{where}: [{name}] {field.name} must be {field.type}, not {value!r}")
        if isinstance(value, int | float) and not _in_bounds(field.name, value):
            raise TrainingError(f"{where}: [{name}] {field.name} cannot be {value!r}")
    return kind(**values)


def _in_bounds(name: str, value: float) -> bool:
    # Found here, since it would end a run long after it began, in a division or a shape.
    if name in _SHARES:
        return 0 <= value < 1
    return math.isfinite(value) and (value > 0 if name in _POSITIVE else value >= 0)


def _fits(value: object, kind: Any) -> bool:
    # TOML's 1 will do for a float; True must not do for an int.
    kinds = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}[kind]
    return isinstance(value, kinds) and (kind == "bool" or not isinstance(value, bool))

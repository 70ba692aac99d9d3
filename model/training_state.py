"""What a training run needs to go on after a kill: one file, replaced whole after every epoch."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import TrainingError
from model.trained_captioner import TrainedCaptioner


@dataclass
class TrainingState:
    """What is trained, the running average of its weights, the optimizer and the epochs so far."""

    captioner: TrainedCaptioner
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    history: list[dict[str, Any]] = field(default_factory=list)

    def follow(self, decay: float) -> None:
        """Move the running average towards the weights; ``decay`` is the share that stays."""
        weights = dict(self.captioner.named_parameters())
        torch._foreach_lerp_(
            list(self.average.values()), [weights[k].detach() for k in self.average], 1 - decay
        )

    def keep_average(self, path: Path) -> None:
        """Write the averaged weights to a file, for a later phase to go on from."""
        fresh = path.with_suffix(".new")
        save_file(self.average, fresh)
        fresh.replace(path)

    @torch.no_grad()
    def adopt(self, paths: Sequence[Path]) -> None:
        """Go on from the mean of what ``keep_average`` wrote."""
        kept = [load_file(path) for path in paths]
        for name, value in self.captioner.named_parameters():
            value.copy_(torch.stack([weights[name] for weights in kept]).mean(0))
            self.average[name].copy_(value)

    def set_weight_decay(self, decay: float) -> None:
        """Say how fast the optimizer draws the weights to zero, relative to the learning rate."""
        for group in self.optimizer.param_groups:
            group["weight_decay"] = decay

    def advance(self, loss: Tensor, rates: tuple[float, float], decay: float) -> None:
        """Make one step down the loss; ``rates`` are the learning rates of network and encoder."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.captioner.parameters(), 1.0)
        self.optimizer.step()
        self.follow(decay)

    def averaged(self) -> TrainedCaptioner:
        """Return a copy with the averaged weights, for looking at."""
        found = copy.deepcopy(self.captioner)
        found.load_state_dict(self.average, strict=False)
        return found.eval()


def make_optimizer(captioner: TrainedCaptioner) -> torch.optim.AdamW:
    """Make a fresh optimizer of two groups: the network's weights, and those of the encoder's upper part."""
    groups = [{"params": list(part.parameters())} for part in (captioner.network, captioner.top)]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def average_of(captioner: TrainedCaptioner) -> dict[str, Tensor]:
    """Start a running average at the weights."""
    return {name: value.detach().clone() for name, value in captioner.named_parameters()}


def save_state(state: TrainingState, path: Path, identity: str) -> None:
    """Write the state; a kill leaves the previous file in place."""
    tensors = {f"average/{key}": value for key, value in state.average.items()}
    for name, value in state.captioner.named_parameters():
        tensors[f"weight/{name}"] = value.detach()
        for moment, tensor in state.optimizer.state.get(value, {}).items():
            tensors[f"{moment}/{name}"] = torch.as_tensor(tensor)
    header = {"identity": identity, "history": json.dumps(state.history)}
    fresh = path.with_suffix(".new")
    save_file(tensors, fresh, metadata=header)
    fresh.replace(path)


def read_history(path: Path, identity: str) -> list[dict[str, Any]]:
    """Return the epochs of a stored state; raise ``TrainingError`` if it belongs to another run."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read; delete it to start anew: {error}") from error
    if header.get("identity") != identity:
        raise TrainingError(
            f"{path} is of a run with another configuration, data or start; use another output folder"
        )
    found: list[dict[str, Any]] = json.loads(header["history"])
    return found


def restore_state(state: TrainingState, path: Path, identity: str) -> None:
    """Fill a fresh state from the file; raise ``TrainingError`` if it belongs to another run."""
    state.history = read_history(path, identity)
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in state.captioner.named_parameters():
            value.copy_(tensors[f"weight/{name}"])
            state.average[name].copy_(tensors[f"average/{name}"])
            moments = {
                m: tensors[f"{m}/{name}"].to("cpu" if m == "step" else value.device)
                for m in ("step", "exp_avg", "exp_avg_sq")
                if f"{m}/{name}" in tensors
            }
            if moments:
                state.optimizer.state[value] = moments

"""The encoders of the classic captioners fit torchvision's weight files, and their networks learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.encoder import build_encoder, load_pretrained
from model.errors import TrainingError
from model.network import pack
from model.recurrent import RecurrentNetwork, RecurrentShape
from model.tokenizer import START

# sha256 over the sorted names and shapes of torchvision 0.28.0's own networks, classifiers left out.
TORCHVISION = {
    "resnet50": "c1f7fd3808aa49e7afb0ec26ebebafda398d447a68e9547c34a3d6fc8945c74c",
    "inception-v3": "5c5cb906421dd92101f74d73352774dd0c7312df1c7e1eab4f2698dfca34cd92",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_have_torchvisions_names_and_shapes(name: str) -> None:
    weights = sorted(build_encoder(name).state_dict().items())
    text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in weights)
    assert hashlib.sha256(text.encode()).hexdigest() == TORCHVISION[name]


def _filled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that every run draws alike, in the order of their names."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {}
    for key, value in sorted(weights.items()):
        if key.endswith("num_batches_tracked"):
            continue
        drawn = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            found[key] = drawn * (2 / value[0].numel()) ** 0.5
        elif key.endswith("running_var"):
            found[key] = 1 + drawn.abs()
        else:
            found[key] = drawn * 0.1 + (1 if key.endswith("weight") else 0)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", [1.36733, 0.0, 9.73791, 7.43045, 23.21761, 1.94507]),
        ("inception-v3", [0.14943, 0.0, 0.00009, 0.00389, 0.00213, 0.00297]),
    ],
)
def test_features_are_torchvisions(name: str, expected: list[float]) -> None:
    # What torchvision 0.28.0's own networks gave before their classifiers, for these weights and pixels.
    encoder = build_encoder(name)
    encoder.load_state_dict(_filled(encoder.state_dict()), strict=False)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (1, encoder.size, encoder.size, 3), dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        features = encoder(pixels)
    assert features.shape == (1, encoder.positions, encoder.channels)
    assert features.mean(1)[0, :6].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_given_weight_file_is_loaded(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    weights = build_encoder("resnet50").half().state_dict() | {"fc.weight": torch.zeros(2, 2048)}
    path = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    found = load_pretrained("resnet50", str(path)).state_dict()
    assert all(torch.equal(found[key], weights[key].to(found[key].dtype)) for key in found)
    with pytest.raises(TrainingError, match="holds no weights of this encoder: "):
        load_pretrained("inception-v3", str(path))


@pytest.mark.parametrize("name", TORCHVISION)
def test_random_weights_are_the_same_each_time_and_tell_pictures_apart(name: str) -> None:
    encoder, again = (load_pretrained(name, "random") for _ in range(2))
    weights = again.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in encoder.state_dict().items())
    pixels = torch.zeros(2, encoder.size, encoder.size, 3, dtype=torch.uint8)
    pixels[1, :, : encoder.size // 2] = 255
    with torch.inference_mode():
        dark, half = encoder(pixels)
    assert (dark - half).norm() > 0.1 * dark.norm()


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path("harmed").touch, ()


def test_weights_that_are_not_there_are_named_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    hint = r"download https://download\.pytorch\.org/models/{}.* or give --encoder-weights FILE"
    for name, file in (("resnet50", "resnet50-11ad3fa6"), ("inception-v3", "inception_v3_google-0cc3c7bd")):
        with pytest.raises(TrainingError, match=hint.format(file)):
            load_pretrained(name)
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / "resnet50-0676ba61.pth"
    cached.write_bytes(b"half a download")
    with pytest.raises(TrainingError, match=r"resnet50-0676ba61\.pth cannot be read"):
        load_pretrained("resnet50")
    torch.save({"conv1.weight": Harmful()}, cached)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_pretrained("resnet50")
    assert not Path("harmed").exists()
    with pytest.raises(TrainingError, match=r"nowhere\.pth cannot be read"):
        load_pretrained("resnet50", str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("attends", [True, False])
def test_packed_training_and_steps_of_the_recurrent_network_agree(attends: bool) -> None:
    torch.manual_seed(0)
    network = RecurrentNetwork(RecurrentShape(30, 9, 12, 16, attends)).eval().requires_grad_(False)
    features = torch.rand(2, 9, 12)
    captions = [[[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[5], [12, 5, 6, 28]]]
    inputs, _, packing = pack(captions, 24)
    scores = (network(network.grid(features), inputs, packing) + network.banned).log_softmax(-1)
    padded = torch.zeros(4 * packing.length, 30).index_copy(0, packing.index, scores)
    padded = padded.view(2, 2, packing.length, 30)
    memory, past = network.memory(features), torch.zeros(10, 2, 4, 16)
    seen = set()
    for place in range(packing.length):
        tokens = [[([START, *c] + [4] * 9)[place] for c in image] for image in captions]
        found, past[place] = network.step(torch.tensor(tokens), torch.tensor([place]), memory, past[:place])
        for image, row in ((i, r) for i in range(2) for r in range(2) if place <= len(captions[i][r])):
            torch.testing.assert_close(found[image, row], padded[image, row, place], atol=1e-5, rtol=0)
            seen.add(round(found[image, row, 5].item(), 4))
    assert len(seen) > 10, "it says the same whatever came before"

"""Settings come from the environment once, and what cannot work is refused in one line."""

from __future__ import annotations

import os

import pytest

from jobs.errors import StartupError
from jobs.settings import Settings, load_settings

DISTRIBUTED = {
    "REDIS_URL": "redis://localhost:6379/0",
    "DATABASE_URL": "postgresql://localhost/captionfleet",
    "CAPTIONFLEET_BUCKET": "uploads",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CAPTIONFLEET_", "REDIS_", "DATABASE_", "AWS_")):
            monkeypatch.delenv(name)


def test_without_anything_it_is_embedded_without_keys() -> None:
    settings = load_settings()
    assert settings.embedded
    assert not settings.keys_required
    assert settings.model_names == ("small",)


def test_distributed_asks_for_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DISTRIBUTED.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert not settings.embedded
    assert settings.keys_required


def test_other_addresses_ask_for_keys() -> None:
    assert load_settings(host="0.0.0.0").keys_required
    for loopback in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        assert not load_settings(host=loopback).keys_required
    for name in ("127.example", "127.0.0.1.example", "localhost.example"):
        assert load_settings(host=name).keys_required


@pytest.mark.parametrize("missing", ["DATABASE_URL", "CAPTIONFLEET_BUCKET"])
def test_redis_needs_the_rest(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in DISTRIBUTED.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(StartupError, match=missing):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://localhost/x"),
        ("REDIS_URL", "http://localhost"),
        ("CAPTIONFLEET_PORT", "many"),
        ("CAPTIONFLEET_PORT", "70000"),
        ("CAPTIONFLEET_MODELS", " , "),
        ("CAPTIONFLEET_LEASE", "0"),
    ],
)
def test_what_cannot_work_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as refusal:
        load_settings()
    assert refusal.value.code == "configuration_invalid"
    assert name in refusal.value.message
    assert "\n" not in refusal.value.message


def test_open_without_keys_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONFLEET_REQUIRE_KEYS", "0")
    with pytest.raises(StartupError, match=r"CAPTIONFLEET_HOST=0\.0\.0\.0 is not loopback"):
        load_settings(host="0.0.0.0")


def test_models_are_names_or_names_with_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONFLEET_MODELS", "small, mine=/models/mine")
    settings = load_settings()
    assert settings.model_names == ("small", "mine")
    assert settings.model_path("small") == "small"
    assert settings.model_path("mine") == "/models/mine"


def test_a_hugging_face_checkpoint_is_named_by_its_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "small, hf:Salesforce/Blip_Base@main, hf:/models/My Model/, vit=hf:nlpconnect/vit"
    monkeypatch.setenv("CAPTIONFLEET_MODELS", given)
    settings = load_settings()
    assert settings.model_names == ("small", "blip_base", "my-model", "vit")
    assert settings.model_path("blip_base") == "hf:Salesforce/Blip_Base@main"
    assert settings.model_path("vit") == "hf:nlpconnect/vit"


def test_an_operator_adds_a_checkpoint_by_command() -> None:
    settings, name = load_settings(models="small,mine=hf:/models/mine").with_model("hf:/other/blip")
    assert (name, settings.model_path("blip")) == ("blip", "hf:/other/blip")
    assert settings.with_model("hf:/models/mine")[1] == "mine"
    for plain in ("small", "unknown", None):
        assert settings.with_model(plain) == (settings, plain)
    with pytest.raises(StartupError, match="another model 'mine'; add NAME=hf:/elsewhere/mine"):
        settings.with_model("hf:/elsewhere/mine")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    assert load_settings().embedded


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]

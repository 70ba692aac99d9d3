"""What the README and the documents tell a reader to do is there, and does it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from api.app import ROUTES
from cli.main import app
from jobs.errors import ItemCode
from tests.e2e.cli.commands import Server
from tests.servers import unavailable

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "photos" / "SOURCES.md",
]


def commands(document: Path) -> list[str]:
    """Every command of a document's console blocks, comments and continuations taken out."""
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s+#.*", "", line[2:]).strip() for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for text in DOCUMENTS
        for word in re.findall(r"`?make ([a-z-]+)(?: [A-Z]+=\w+)?`", text.read_text())
    }
    named |= {parts[1] for text in DOCUMENTS for c in commands(text) if (parts := c.split())[0] == "make"}
    assert named
    assert named <= targets


def test_captionfleet_commands_and_their_options_exist() -> None:
    tree = typer.main.get_command(app)
    seen = 0
    for line in (line for document in DOCUMENTS for line in commands(document)):
        words = shlex.split(line)
        if "captionfleet" not in words or words[0] in ("cdk", "git"):
            continue
        command, rest = tree, words[words.index("captionfleet") + 1 :]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]  # type: ignore[attr-defined]
        # Without a command there is an option of `captionfleet` itself.
        assert command is not tree or (rest and rest[0].startswith("--")), line
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= {*options, "-"}, line
        seen += 1
    assert seen >= 9


def test_the_curl_commands_answer_as_written() -> None:
    if shutil.which("curl") is None:
        unavailable("curl is not installed")
    lines = [line for line in commands(ROOT / "README.md") if line.startswith("curl")]
    assert len(lines) == 2
    server = Server()
    server.start()
    try:
        for line in lines:
            words = [word.replace("localhost:8080", server.url) for word in shlex.split(line)]
            answer = subprocess.run([*words, "--silent", "--fail"], cwd=ROOT, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stderr
            assert "a brown and black dog" in answer.stdout or '"object":"job"' in answer.stdout
    finally:
        server.process.stop()


def test_the_endpoints_named_are_served() -> None:
    served = {re.sub(r"[<{][^>}]*[>}]", "{}", route.path) for route in ROUTES}
    text = (ROOT / "README.md").read_text()
    named = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r"(?:GET|POST) (/v1/[\w/{}]+)", text)}
    assert named
    assert named <= served


def test_every_error_code_is_in_words_a_user_reads() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    assert all(f"`{code.value}`" in text for code in ItemCode)

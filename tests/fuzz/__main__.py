"""``make fuzz``: each target by libFuzzer (atheris), guided by coverage; a table of what was run and found.

``--seconds`` is the time of each target. What crashes is kept in ``--findings``, one file each, and told
with its traceback; ``python -m tests.fuzz --replay FILE --target NAME`` runs it again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS, everything

FINDINGS = Path(tempfile.gettempdir()) / "captionfleet-fuzz"


def main() -> int:
    """Fuzz, in a process for each target; the exit status says whether something was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0, the default: another one each time")
    parser.add_argument("--target", action="append", help="instead of each in turn; `all` is one run of all")
    parser.add_argument("--findings", type=Path, default=FINDINGS)
    parser.add_argument("--replay", type=Path)
    given = parser.parse_args()
    chosen = given.target or list(TARGETS)
    if given.replay:
        (TARGETS | {"all": everything})[chosen[0]](given.replay.read_bytes())
        return 0
    given.findings.mkdir(parents=True, exist_ok=True)
    print(f"{'target':<14}{'executions':>12}{'seconds':>9}{'edges':>8}{'crashes':>9}")
    found = [_report(target, given.seconds, given.findings, given.seed) for target in chosen]
    return int(any(found))


def _report(target: str, seconds: int, findings: Path, seed: int) -> bool:
    """Run one target and print its line; true if it found something."""
    with tempfile.TemporaryDirectory() as corpus:
        run = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run", target, str(seconds), corpus, str(findings), str(seed)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    done = re.search(r"Done (\d+) runs in (\d+) second", run.stderr) or re.search(r"#(\d+)()", run.stderr)
    executions, spent = (done.group(1), done.group(2)) if done else ("0", "")
    edges = re.findall(r"cov: (\d+)", run.stderr)
    crashed = run.returncode != 0
    edge = edges[-1] if edges else ""
    print(f"{target:<14}{int(executions):>12,}{spent:>9}{edge:>8}{int(crashed):>9}", flush=True)
    if crashed:
        print((run.stdout + run.stderr)[-6_000:])
    return crashed


if __name__ == "__main__":
    sys.exit(main())

"""``make bench``: every measurement in one run, as a table and as JSON for comparing versions."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Figure, Measure, Setting, compare, line, write_json
from benchmarks.machine import describe_machine
from benchmarks.photos import make_photos
from model.captioner import DecodingOptions
from model.loading import load_captioner, shipped_models

# The figures that decide come first: a run that is broken off keeps what it has found.
MODULES = ("worker", "bare", "store", "uploads", "latency", "peers", "fleet", "decoding")


def modules(names: list[str]) -> Iterator[tuple[str, Measure]]:
    """Yield the named modules' measurements; all that are there without names."""
    for name in names or MODULES:
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "figures"):
            yield name, module.figures


def run(setting: Setting, names: list[str], found: list[Figure], keep: Callable[[], None]) -> list[str]:
    """Measure module by module, print each figure, keep all so far; return the modules that broke."""
    broken: list[str] = []
    for name, measure in modules(names):
        print(f"\n{name}", flush=True)
        began = time.monotonic()
        try:
            for figure in measure(setting):
                found.append(figure)
                print(line(figure), flush=True)
        except Exception:
            # The others need not be measured again for it.
            traceback.print_exc()
            broken.append(name)
        keep()
        print(f"{'':<58}{time.monotonic() - began:>10.0f} s measured", flush=True)
    return broken


def describe_model(model: str) -> str:
    """Say which model is measured, how it runs and how it decodes."""
    captioner = load_captioner(model)
    options = captioner.resolve(DecodingOptions())
    return (
        f"{captioner.name} on {captioner.device}, {options.num_beams} beams, up to {options.max_length} words"
    )


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; all if not said")
    parser.add_argument("--model", default=shipped_models()[0], help="a shipped model or a model folder")
    parser.add_argument("--photos", type=Path, help="folder of photos; made from the samples if not said")
    parser.add_argument("--images", type=int, default=600, help="photos in a bulk measurement")
    parser.add_argument("--seconds", type=float, default=6.0, help="time per short measurement")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write the figures")
    parser.add_argument("--compare", type=Path, help="JSON of another version's run")
    parser.add_argument("--profiles", type=Path, default=Path("docs/images"), help="folder for plots")
    given = parser.parse_args()
    about = {"machine": describe_machine(), "model": describe_model(given.model), "command": sys.argv[1:]}
    print(f"{about['machine']}\n{about['model']}")
    with tempfile.TemporaryDirectory(prefix="captionfleet-bench-") as made:
        if given.photos is None:
            make_photos(Path(made), given.images)
        photos = given.photos or Path(made)
        setting = Setting(given.model, photos, given.images, given.seconds, given.profiles)
        found: list[Figure] = []
        broken = run(setting, given.modules, found, lambda: write_json(given.json, about, found))
    if given.compare:
        print("\nthen, now, now / then\n" + "\n".join(compare(given.compare, found)))
    missed = [figure.name for figure in found if figure.met is False]
    print(f"\n{len(found)} figures in {given.json}; {len(missed)} goals missed")
    if broken:
        sys.exit(f"not measured to the end: {', '.join(broken)}")


if __name__ == "__main__":
    main()

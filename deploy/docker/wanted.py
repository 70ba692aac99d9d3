"""Print the requirements of the service, of the client and of the extras named, one a line."""

import sys
import tomllib
from pathlib import Path

files = ("pyproject.toml", "client/pyproject.toml")
project, client = (tomllib.loads(Path(file).read_text(encoding="utf-8"))["project"] for file in files)
extras = project["optional-dependencies"]
named = [line for extra in sys.argv[1:] for line in extras[extra]]
wanted = [*project["dependencies"], *client["dependencies"], *named]
print("\n".join(line for line in wanted if not line.startswith("captionfleet")))

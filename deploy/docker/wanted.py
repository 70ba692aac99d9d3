"""Print the requirements of pyproject.toml and of the extras named on the command line, one a line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *(line for extra in sys.argv[1:] for line in extras[extra])]
print("\n".join(line for line in wanted if not line.startswith("captionfleet[")))

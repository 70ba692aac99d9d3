"""The captionfleet command."""

import sys

# Said before anything is imported that such a Python cannot even read.
if sys.version_info < (3, 11):  # noqa: UP036
    _FOUND = ".".join(map(str, sys.version_info[:2])) + " at " + sys.executable
    sys.exit("captionfleet: error: Captionfleet needs Python 3.11 or newer; this is " + _FOUND)

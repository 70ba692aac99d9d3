"""Caption a folder on a server: python examples/caption_folder.py FOLDER [URL] [KEY].

The photos go straight to the object store where there is one. Interrupted, the next run sends only the rest.
"""

import sys
from pathlib import Path

from captionfleet_client import Client, Direct, Job


def show(job: Job) -> None:
    """Print how far the job is."""
    print(f"{job.status}: {job.counts.final} of {job.counts.total}", file=sys.stderr)


folder = Path(sys.argv[1])
photos = sorted(folder.glob("*.jpg"))
with Client(*sys.argv[2:]) as client:
    job = client.submit(Direct(photos, state=folder.with_name(f"{folder.name}.upload")))
    job = client.wait(job, progress=show)
    for item in client.results(job):
        print(item.name, item.error.message if item.error else item.text, sep="\t")

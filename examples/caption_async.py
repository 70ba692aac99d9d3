"""Caption photos one by one, four at a time: python examples/caption_async.py FOLDER [URL] [KEY]."""

import asyncio
import sys
from pathlib import Path

from captionfleet_client import AsyncClient


async def main() -> None:
    """Caption every photo of a folder."""
    places = asyncio.Semaphore(4)
    async with AsyncClient(*sys.argv[2:]) as client:

        async def caption(photo: Path) -> None:
            async with places:
                item = await client.caption(photo)
                print(item.name, item.text or item.error, sep="\t")

        await asyncio.gather(*(caption(photo) for photo in sorted(Path(sys.argv[1]).glob("*.jpg"))))


asyncio.run(main())

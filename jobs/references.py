"""Images that a request names instead of bringing them: turned into items, each checked for its owner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from jobs.errors import RequestError
from jobs.names import clean_name
from jobs.objects import ObjectStore
from jobs.objects.s3 import split_uri
from jobs.records import Reference
from jobs.store.jobs import UPLOAD
from jobs.store.submit import NewItem
from jobs.store.uploads import DirectUpload, UploadStore, split_upload_id, upload_prefix


class References:
    """Turns one owner's references into items."""

    def __init__(
        self, owner: str, check: Callable[[str], None], uploads: UploadStore, objects: ObjectStore
    ) -> None:
        """Take what raises ``RequestError`` forbidden for an S3 URI that is not the owner's to name."""
        self._owner = owner
        self._check = check
        self._uploads = uploads
        self._objects = objects
        self._batches: dict[str, tuple[dict[int, DirectUpload], dict[str, int]]] = {}

    def item(self, reference: Reference) -> NewItem:
        """Return the item; raise ``RequestError`` forbidden, invalid_request or upload_incomplete."""
        uri = reference.s3_uri
        if uri is not None:
            self._check(uri)
        if reference.upload_id is None:
            return self.unchecked(reference)
        upload = self._uploaded(reference.upload_id)
        custom_id = reference.custom_id or upload.name
        return NewItem(
            upload.name, custom_id, UPLOAD, upload.key, upload.content_type, upload_id=reference.upload_id
        )

    def unchecked(self, reference: Reference) -> NewItem:
        """Return the item of an image in S3 or on the web, whoever may read it."""
        uri = reference.s3_uri
        name = uri.rpartition("/")[2] if uri else url_name(reference.place)
        if not name:
            key = split_uri(reference.place)[1]
            name = PurePosixPath(key).name or key
        return NewItem(name, reference.custom_id or name, reference.place)

    def _uploaded(self, upload_id: str) -> DirectUpload:
        """Return an upload whose bytes are there, all of them, and that no other job has."""
        batch, number = split_upload_id(upload_id) or ("", 0)
        if batch not in self._batches:
            found = self._uploads.batch(self._owner, batch)
            sizes = self._objects.sizes(upload_prefix(batch)) if found else {}
            self._batches[batch] = (found, sizes)
        rows, sizes = self._batches[batch]
        upload = rows.get(number)
        if upload is None:
            raise RequestError("invalid_request", f"there is no upload {upload_id}, or it has expired")
        if upload.job_id is not None:
            raise RequestError("invalid_request", f"the upload {upload_id} belongs to a job already")
        if sizes.get(upload.key) != upload.size:
            message = f"the upload {upload_id} ({upload.name}) has not been sent yet, or not as announced"
            raise RequestError("upload_incomplete", message)
        return upload


def url_name(url: str) -> str:
    """Return what a URL's file is called: the end of its path, else its host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Such as a bracket too many: the item fails when its bytes are fetched, and says why.
        return clean_name(url, "image")
    return clean_name(unquote(parts.path.rstrip("/")), parts.netloc or "image")

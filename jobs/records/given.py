"""What the API takes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from jobs.image_types import named_like_image
from jobs.records.values import Priority, S3Prefix, S3Uri, ShortText, UploadId, Url


class Body(BaseModel):
    """Base of everything a client sends: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CaptionOptions(Body):
    """How to caption; what is left out takes the model's own default."""

    model: str | None = Field(None, max_length=128, description="One of GET /v1/models; default: the first.")
    num_beams: int | None = Field(None, ge=1, le=5, description="Beams of the search; 1 is greedy.")
    num_captions: int | None = Field(
        None, ge=1, le=5, description="Captions per image; when searching, at most num_beams."
    )
    max_length: int | None = Field(
        None, ge=1, le=50, description="Most words; for Hugging Face models, most tokens."
    )
    min_length: int | None = Field(None, ge=0, le=50, description="Fewest words or tokens.")
    prompt: str | None = Field(
        None, max_length=1024, description="Start of the caption, or instruction, for models that take one."
    )
    length_penalty: float | None = Field(
        None, ge=0, le=2, description="Search: captions rank by log-probability / length ** this."
    )
    top_p: float | None = Field(
        None, ge=0.01, le=1, description="Sample among the likeliest words that together reach this."
    )
    temperature: float | None = Field(None, ge=0.1, le=2, description="Sample; lower is less daring.")
    seed: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Of sampling, 0 if left out: the same seed says the same."
    )
    use_cache: bool | None = Field(
        None, description="Take captions of the same bytes, model and options from your earlier jobs; true."
    )


class OutputFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class JobOutput(Body):
    """Results in S3 when the job has ended, under prefixes that you may write to."""

    uri: S3Uri | None = Field(None, description="The results object, under exactly this name.")
    s3_prefix: S3Prefix | None = Field(None, description="The results object, as <prefix>/<job id>.<format>.")
    format: OutputFormat | None = Field(None, description="Default: what the end of uri says, else jsonl.")
    sidecar: Literal["txt", "json"] | None = Field(
        None, description="Also beside each image in S3: photo.txt (the caption) or photo.json (the item)."
    )

    @model_validator(mode="after")
    def _one_object(self) -> Self:
        if self.uri is not None and self.s3_prefix is not None:
            raise ValueError("the results object goes to uri or under s3_prefix, not both")
        if self.uri is None and self.s3_prefix is None and (self.format or not self.sidecar):
            raise ValueError("uri or s3_prefix says where the results object goes")
        if self.uri is not None and named_like_image(self.uri):
            raise ValueError("uri is named like an image")
        return self

    @property
    def form(self) -> OutputFormat:
        """The format of the results object."""
        if self.format is not None:
            return self.format
        ending = (self.uri or "").rpartition(".")[2].lower()
        return OutputFormat(ending) if ending in list(OutputFormat) else OutputFormat.JSONL


class OutputStatus(StrEnum):
    """Where a job's output is in its life."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class JobSpec(Body):
    """The ``job`` part of a multipart request: everything but the images."""

    options: CaptionOptions = CaptionOptions()
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Yours; returned as given, at most 16 KiB."
    )
    priority: Priority = Priority.NORMAL
    webhook_url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        None, description="Called, signed, when the job has ended."
    )
    output: JobOutput | None = None


class ImageReference(Body):
    """One image that lies in S3, on the web, or was uploaded by itself: exactly one of the three."""

    s3_uri: S3Uri | None = Field(None, description="An object under a prefix granted to you.")
    url: Url | None = Field(None, description="An address that the workers fetch.")
    upload_id: UploadId | None = Field(None, description="What POST /v1/uploads gave and you have sent.")
    custom_id: ShortText | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.s3_uri, self.url, self.upload_id)) != 1:
            raise ValueError("exactly one of s3_uri, url and upload_id says where the image is")
        return self

    @property
    def place(self) -> str:
        """Where the image is, in whichever way."""
        return self.s3_uri or self.url or self.upload_id or ""


class S3Reference(NamedTuple):
    """What a valid ``ImageReference`` to S3 says, at a tenth of its cost: manifests have millions of them."""

    s3_uri: str
    custom_id: str | None
    url: None = None
    upload_id: None = None

    @property
    def place(self) -> str:
        """Where the image is."""
        return self.s3_uri


Reference = ImageReference | S3Reference


class UploadFile(Body):
    """A file that is to be uploaded by itself."""

    name: ShortText
    content_type: Annotated[
        str,
        StringConstraints(max_length=128, pattern=r"^(image/[a-zA-Z0-9.+-]+|application/octet-stream)$"),
    ] = Field("application/octet-stream", description="What the PUT will say; image/… or octet-stream.")
    size: int = Field(ge=1, description="Bytes of the file, exactly.")


class UploadRequest(Body):
    """Files that are to be uploaded by themselves."""

    files: Annotated[list[UploadFile], Field(min_length=1, max_length=1000, fail_fast=True)]


class ObjectFilter(Body):
    """Which objects under a prefix become images; without suffixes and glob, those named like images."""

    suffixes: Annotated[list[ShortText], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Endings such as .jpg, in any case."
    )
    glob: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        None, description="Of the key behind the prefix's last slash: * within a part, ** across parts."
    )
    min_size: int | None = Field(None, ge=0, description="Bytes.")
    max_size: int | None = Field(None, ge=0, description="Bytes.")
    modified_since: AwareDatetime | None = None


class JobRequest(JobSpec):
    """A job whose images lie elsewhere: exactly one of images, s3_prefix and manifest says where."""

    # The first that is wrong is the last that is looked at: each error takes hundreds of times its bytes.
    images: Annotated[list[ImageReference], Field(min_length=1, fail_fast=True)] | None = None
    s3_prefix: S3Prefix | None = Field(None, description="All images under it, listed in the background.")
    manifest: S3Uri | None = Field(None, description="NDJSON, or CSV if it ends in .csv, one image a line.")
    filter: ObjectFilter | None = Field(None, description="With s3_prefix.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.images, self.s3_prefix, self.manifest)) != 1:
            raise ValueError("exactly one of images, s3_prefix and manifest says where the images are")
        if self.filter is not None and self.s3_prefix is None:
            raise ValueError("a filter goes with s3_prefix")
        return self

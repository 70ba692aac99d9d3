"""What the lifecycle rules of a bucket do behind the service's back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import ItemError, StorageUnavailable
from jobs.objects.s3 import S3, refusal, translated

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import LifecycleRuleOutputTypeDef

# From these classes nothing can be read at once.
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_NONE = "NoSuchLifecycleConfiguration"
_UNKNOWN = {"NotImplemented", "MethodNotAllowed"}


@dataclass(frozen=True)
class Lifecycle:
    """``days`` after which some of the objects go, if they do; whether unfinished uploads are removed."""

    days: int | None
    aborts_uploads: bool


def read_lifecycle(s3: S3, bucket: str, prefixes: Sequence[str]) -> Lifecycle | None:
    """Return what the rules of a bucket do to objects under these prefixes.

    ``None`` where the server knows no rules or does not show them. Raises ``StorageUnavailable``.
    """
    try:
        with translated():
            answer: Any = s3.client.get_bucket_lifecycle_configuration(Bucket=bucket)
    except ItemError:
        return None
    except StorageUnavailable as error:
        if refusal(error) == _NONE:
            return Lifecycle(None, aborts_uploads=False)
        if refusal(error) in _UNKNOWN:
            return None
        raise
    if "Rules" not in answer:
        return None
    rules: list[LifecycleRuleOutputTypeDef] = answer["Rules"]
    active = [rule for rule in rules if rule["Status"] == "Enabled" and _touches(rule, prefixes)]
    aborts = any("AbortIncompleteMultipartUpload" in rule for rule in active)
    return Lifecycle(min(_all_days(active), default=None), aborts)


def _touches(rule: LifecycleRuleOutputTypeDef, prefixes: Sequence[str]) -> bool:
    """Whether a rule is about objects under a prefix; the service gives its objects no tags."""
    given = rule.get("Filter", {})
    both = given.get("And", {})
    if "Tag" in given or both.get("Tags"):
        return False
    wanted = both.get("Prefix") or given.get("Prefix") or rule.get("Prefix") or ""
    return any(prefix.startswith(wanted) or wanted.startswith(prefix) for prefix in prefixes)


def _all_days(rules: Iterable[LifecycleRuleOutputTypeDef]) -> Iterator[int]:
    for rule in rules:
        ends = rule.get("Expiration", {})
        moves = [move for move in rule.get("Transitions", ()) if move.get("StorageClass") in _ARCHIVES]
        for change in (ends, *moves):
            # From a date on, everything goes at once.
            if "Days" in change or "Date" in change:
                yield change.get("Days", 0)

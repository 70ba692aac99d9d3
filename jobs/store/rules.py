"""Rules for bucket events: what becomes of new objects under a prefix, and whose jobs they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.records import JobSpec
from jobs.store.database import Database
from jobs.tables import RuleRow


@dataclass(frozen=True)
class Rule:
    """New images whose keys begin with ``prefix`` make jobs of ``owner``, as ``spec`` says."""

    id: str
    owner: str
    bucket: str
    prefix: str
    spec: JobSpec

    @property
    def uri(self) -> str:
        """The prefix as it is written."""
        return f"s3://{self.bucket}/{self.prefix}"


class Rules:
    """All rules at one moment; the longest prefix that fits decides."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_bucket: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in sorted(rules, key=lambda rule: len(rule.prefix), reverse=True):
            self._by_bucket[rule.bucket].append(rule)

    def find(self, bucket: str, key: str) -> Rule | None:
        """Return the rule for an object, if there is one."""
        return next((rule for rule in self._by_bucket.get(bucket, ()) if key.startswith(rule.prefix)), None)


class RuleStore:
    """The rules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, owner: str, bucket: str, prefix: str, spec: JobSpec) -> Rule:
        """Make a rule; raise ``RequestError`` invalid_request where the prefix has one already."""
        rule = Rule(new_id("rule"), owner, bucket, prefix, spec)
        values = {"id": rule.id, "owner": owner, "bucket": bucket, "prefix": prefix}
        kept = spec.model_dump(mode="json", exclude_none=True)
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            made = connection.execute(
                dialect.insert(RuleRow)
                .values(**values, spec=kept, created_at=self._database.now())
                .on_conflict_do_nothing()
                .returning(RuleRow.id)
            ).first()
        if made is None:
            raise RequestError("invalid_request", f"{rule.uri} has a rule already; remove that one first")
        return rule

    def remove(self, rule_id: str) -> None:
        """Forget a rule; jobs that it made go on. Raises ``RequestError`` not_found."""
        with self._database.write() as connection:
            removed = connection.execute(delete(RuleRow).where(RuleRow.id == rule_id)).rowcount
        if not removed:
            raise RequestError("not_found", f"there is no rule {rule_id}; see `captionfleet rules list`")

    def all(self) -> list[Rule]:
        """Return every rule, by bucket and prefix."""
        query = select(RuleRow).order_by(RuleRow.bucket, RuleRow.prefix)
        with self._database.read() as connection:
            return [
                Rule(row.id, row.owner, row.bucket, row.prefix, JobSpec.model_validate(row.spec))
                for row in connection.execute(query)
            ]

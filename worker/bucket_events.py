"""The bucket-event consumer: notifications of new objects become jobs, by rules, each event once.

A message is deleted after the transaction that makes its job and notes its events; whoever receives it once
more finds them there. What cannot be used goes to the dead-letter queue with the reason, and can be replayed.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.errors import (
    BrokerUnavailable,
    CaptionfleetError,
    ItemCode,
    ItemError,
    RequestError,
    StartupError,
    TransientError,
)
from jobs.ids import new_id
from jobs.image_types import named_like_image
from jobs.listing import listed_item
from jobs.meters import Exposition
from jobs.metrics import BACKGROUND, EVENT_MESSAGES, EVENT_OBJECTS, EVENT_WAITS, EVENTS
from jobs.ports import open_metrics_listener, show_metrics
from jobs.queue.sqs import Received, Sqs
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.rules import Rule, Rules
from jobs.store.schema import reach
from jobs.store.submit import NewItem, NewJob
from jobs.tracing import start_tracing
from worker.notifications import Created, read
from worker.signals import on_signals
from worker.stopping import FIRST_PAUSE_S, LONGEST_PAUSE_S, until_answered

log = logging.getLogger(__name__)

SOURCE = "bucket_event"
# A stop waits for a poll at most so long, which is less than containers are given.
POLL_S = 5
# What waits in the queue is gathered for so long: ten thousand photos should not make a thousand jobs.
GATHER_S = 1.0
GATHER_MESSAGES = 1000
# After so many receives without a dead letter from before, there are none.
RECEIVES_IN_VAIN = 3


@dataclass
class _Sorted:
    """The events of some messages, by rule, and what is wrong with messages, by number."""

    rules: dict[str, Rule] = field(default_factory=dict)
    events: defaultdict[str, list[tuple[int, Created]]] = field(default_factory=lambda: defaultdict(list))
    faults: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    passed_over: Counter[str] = field(default_factory=Counter)


class EventConsumer:
    """Receives notifications from one queue until it is stopped."""

    def __init__(self, services: Services, sqs: Sqs, queue_url: str, dead_letter_url: str | None) -> None:
        """Without ``dead_letter_url``, the queue's own redrive policy says where unusable messages go."""
        self._services = services
        self._settings = services.settings
        self._sqs = sqs
        self._queue_url = queue_url
        self._dead_letter_url = dead_letter_url
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let ``run`` end after the messages in hand."""
        self._stopping.set()

    def run(self) -> None:
        """Consume until ``stop``; raise ``StartupError`` where there is no dead-letter queue."""
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                self.run_once()
                pause = FIRST_PAUSE_S
            except TransientError as error:
                # What was received comes again when its visibility time has passed.
                EVENT_WAITS.add()
                log.warning("bucket events wait: %s", error)
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def run_once(self) -> None:
        """Receive once and make jobs of it; raise ``TransientError`` where a dependency is away."""
        self._show_life()
        if self._dead_letter_url is None:
            self._dead_letter_url = dead_letter_url(self._sqs, self._queue_url)
        # SQS gives up a message after some receives: none is received that could not be used.
        reach(self._services.store.database)
        messages = self._gather()
        if messages:
            self._handle(messages)

    def _gather(self) -> list[Received]:
        messages = self._sqs.receive(self._queue_url, POLL_S)
        until = time.monotonic() + GATHER_S
        while messages and len(messages) < GATHER_MESSAGES and time.monotonic() < until:
            try:
                more = self._sqs.receive(self._queue_url, 0)
            except BrokerUnavailable as error:
                log.warning("going on with %d messages: %s", len(messages), error)
                break
            if not more:
                break
            messages += more
        return messages

    def _handle(self, messages: Sequence[Received]) -> None:
        """Take messages and delete them; one that fails in a new way stays and holds up no other."""
        try:
            faults = until_answered(self._stopping, lambda: self._take(messages))
        except CaptionfleetError:
            raise
        except Exception:
            if len(messages) == 1:
                log.exception("message %s stays in the queue", messages[0].id)
                return
            middle = len(messages) // 2
            self._handle(messages[:middle])
            self._handle(messages[middle:])
            return
        self._settle(messages, faults)

    def _settle(self, messages: Sequence[Received], faults: Mapping[int, Sequence[str]]) -> None:
        """Delete what was taken, and what could not be once it is a dead letter."""
        good = [message for number, message in enumerate(messages) if number not in faults]
        self._sqs.delete(self._queue_url, good)
        EVENT_MESSAGES.add(len(good), "taken")
        for number, reasons in faults.items():
            reason = "; ".join(dict.fromkeys(reasons))
            log.warning("message %s goes to the dead-letter queue: %s", messages[number].id, reason)
            self._sqs.send(self._dead_letter_url or "", messages[number].body, reason)
            self._sqs.delete(self._queue_url, [messages[number]])
            EVENT_MESSAGES.add(1, "dead_letter")

    def _take(self, messages: Sequence[Received]) -> Mapping[int, Sequence[str]]:
        """Make jobs of all events that no job has yet; return what is wrong with messages, by number."""
        self._show_life()
        found = self._sort(messages)
        for rule_id, events in found.events.items():
            rule = found.rules[rule_id]
            try:
                self._make_jobs(rule, [created for _, created in events])
            except RequestError as error:
                for number, _ in events:
                    found.faults[number].append(f"{error.code}: {error.message} ({rule.id}, {rule.uri})")
        if found.passed_over:
            counts = ", ".join(f"{count} {why}" for why, count in sorted(found.passed_over.items()))
            log.info("passed over of %d messages: %s", len(messages), counts)
        return found.faults

    def _sort(self, messages: Sequence[Received]) -> _Sorted:
        rules = Rules(self._services.store.rules.all())
        found = _Sorted()
        for number, message in enumerate(messages):
            reading = read(message.body)
            if reading.faults:
                found.faults[number] += reading.faults
            found.passed_over["other events"] += reading.others
            for created in reading.created:
                rule = rules.find(created.bucket, created.key)
                if why := self._unwanted(created, rule):
                    found.passed_over[why] += 1
                elif rule is not None:
                    found.rules[rule.id] = rule
                    found.events[rule.id].append((number, created))
        found.passed_over += Counter()  # Drops what was counted zero times.
        return found

    def _unwanted(self, created: Created, rule: Rule | None) -> str | None:
        """Say why an object is none of ours to caption; what this service writes is named like no image."""
        if created.bucket == self._settings.bucket:
            return "in this service's own bucket"
        if created.key.endswith("/") or not named_like_image(created.key):
            return "not named like an image"
        if rule is None:
            log.debug("there is no rule for s3://%s/%s", created.bucket, created.key)
            return "without a rule"
        return None

    def _make_jobs(self, rule: Rule, events: Sequence[Created]) -> None:
        """Commit what is new of a rule's events; raise ``RequestError`` where the rule may not (any more)."""
        intake = self._services.intake
        model = intake.check(rule.spec)
        intake.access(rule.owner).check(rule.uri)
        spec = rule.spec.model_copy(update={"metadata": {**rule.spec.metadata, "rule": rule.id}})
        items = {created.digest: _item(created, rule) for created in events}
        digests = list(items)
        for start in range(0, len(digests), self._settings.max_images):
            part = {digest: items[digest] for digest in digests[start : start + self._settings.max_images]}
            job = NewJob(new_id("job"), rule.owner, model, SOURCE, spec)
            intake.check_output(job.id, rule.owner, spec)
            taken = intake.submit_events(job, part)
            EVENT_OBJECTS.add(taken)
            where = f": {job.id} of {rule.owner}" if taken else ""
            log.info("%d events under %s, %d new%s", len(part), rule.uri, taken, where)

    def _show_life(self) -> None:
        if self._settings.alive_file is not None:
            self._settings.alive_file.touch()


def _item(created: Created, rule: Rule) -> NewItem:
    path = created.key[rule.prefix.rfind("/") + 1 :]
    item = listed_item(created.bucket, created.key, path)
    if any(part in (".", "..") for part in created.key.split("/")):
        # A server with folders behind it would take them for a way out of the granted prefix.
        denied = ItemError(ItemCode.ACCESS_DENIED, "a key with the parts . or .. is not read")
        return item._replace(error=denied)
    return item


def dead_letter_url(sqs: Sqs, queue_url: str) -> str:
    """Return where a queue's unusable messages go by its redrive policy.

    Raises ``StartupError`` where it has none, and ``BrokerUnavailable``.
    """
    url = sqs.dead_letter_url(queue_url)
    if url is None:
        message = (
            "the events queue has no dead-letter queue: give it a redrive policy, "
            "or set CAPTIONFLEET_EVENTS_DEAD_LETTER_URL"
        )
        raise StartupError("configuration_invalid", message)
    return url


def replay(sqs: Sqs, dead_letters: str, queue_url: str) -> Counter[str]:
    """Send every dead letter to the queue again; return how many there were, by reason.

    What arrives meanwhile stays: the consumer may find the same letters unusable again.
    """
    began_ms = time.time() * 1000
    reasons: Counter[str] = Counter()
    in_vain = 0
    # SQS asks some of its servers at a time and keeps no order: one answer without old letters says little.
    while in_vain < RECEIVES_IN_VAIN:
        messages = sqs.receive(dead_letters, wait_s=1)
        old = [message for message in messages if message.sent_at_ms <= began_ms]
        in_vain = 0 if old else in_vain + 1
        for message in old:
            sqs.send(queue_url, message.body)
            sqs.delete(dead_letters, [message])
            reasons[message.reason or "received too often"] += 1
    return reasons


def run_events(settings: Settings, sqs: Sqs | None = None) -> int:
    """Consume the configured queue, sweep and expand until SIGTERM or SIGINT; return the exit status."""
    url = settings.events_queue_url
    if url is None:
        message = "CAPTIONFLEET_EVENTS_QUEUE_URL is not set: which queue do notifications go to?"
        raise StartupError("configuration_invalid", message)
    show_metrics(open_metrics_listener(settings), Exposition([EVENTS, BACKGROUND], process=True))
    start_tracing(settings, "captionfleet-events")
    services = build_services(settings)
    consumer = EventConsumer(services, sqs or Sqs(url), url, settings.events_dead_letter_url)
    on_signals((signal.SIGTERM, signal.SIGINT), lambda _number: consumer.stop())
    services.start()
    try:
        log.info("taking bucket events from %s", url)
        consumer.run()
    finally:
        services.close()
    return 0

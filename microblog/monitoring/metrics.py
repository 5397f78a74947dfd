"""/metrics for Prometheus: values of all processes together, from the database and Redis.

No process has counters of its own, so every web process returns the same values, and no count is lost when a process
ends. If a service is unavailable, only the metrics that come from it are omitted. Events that no row records, which are
dropped, republished and malformed messages, are counted in Redis. If it loses its data, these counters restart at zero,
which Prometheus expects.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from flask import Flask
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from microblog.extensions import SiteRedis, redis_client
from microblog.mail.sending import MailTask
from microblog.monitoring.probes import ConcurrentProbes
from microblog.monitoring.queues import QueueStats, known_queues
from microblog.monitoring.rollup import DurationHistogram, TaskAggregate
from microblog.monitoring.rules import RULES
from microblog.monitoring.statistics import TaskTableSnapshot, take_snapshot
from microblog.monitoring.status import SystemStatus, check_status
from microblog.monitoring.workers import WorkerReplies
from microblog.notifications.pubsub import count_open_streams
from microblog.taskqueue import states
from microblog.taskqueue.errors import ClaimRefused
from microblog.taskqueue.interface import celery_app, claim_refused, message_republished, message_set_aside
from microblog.taskqueue.worker import JobTask

logger = logging.getLogger(__name__)

DEADLINE = 5.0  # seconds after which a service that has not responded counts as unavailable
PING_TIMEOUT = 1.0  # seconds that a worker has to reply
POWERS = range(-7, 15)  # bucket bounds of the histograms, as powers of two: 8 ms to 4 h 33 min
COUNTS_KEY = "counts"  # a hash: event name to count
REPUBLISHED = "relayed"  # the name of the exported metric
SET_ASIDE = "set_aside"
REFUSED = "refused:"  # followed by the reason: the name of the exception class


@dataclass(frozen=True)
class RedisValues:
    """Values from Redis: counters, and the number of open streams."""

    counts: dict[str, int]
    open_streams: int


class Metrics:
    """Collector of the metrics of all processes, with a time limit for each service."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._probes, self._status_probes = ConcurrentProbes(app), ConcurrentProbes(app)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that the header `accept` requests, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; called by the registry of prometheus_client."""
        started = time.perf_counter()
        futures = self._probes.run(PROBES | {"status": self._check_status}, DEADLINE)
        for name, describe in DESCRIBERS.items():
            result = _result(name, futures[name])
            if name in ("database", "redis"):
                up = int(result is not None)
                described = f"Whether the {name} responds (1) or not (0)."
                yield GaugeMetricFamily(f"microblog_{name}_up", described, value=up)
            if result is not None:
                with self._app.app_context():
                    yield from describe(result)
        elapsed = time.perf_counter() - started
        yield GaugeMetricFamily("microblog_scrape_seconds", "How long it took to collect these metrics.", value=elapsed)

    def _check_status(self) -> SystemStatus:
        return check_status(PING_TIMEOUT, self._status_probes)


def init_app(app: Flask) -> None:
    """Set up the collector, and count the signals of the engine of `app`."""

    def count_refusal(sender: object, refusal: ClaimRefused) -> None:
        _count(app, REFUSED + type(refusal).__name__)

    def count_republished(sender: object, **_: Any) -> None:
        _count(app, REPUBLISHED)

    app.extensions["metrics"] = Metrics(app)

    def count_set_aside(sender: object, **_: Any) -> None:
        _count(app, SET_ASIDE)

    app.extensions["count_events"] = (
        count_refusal,
        count_republished,
        count_set_aside,
    )  # signals keep only weak references
    claim_refused.connect(count_refusal, sender=app.extensions["celery"])
    message_republished.connect(count_republished, sender=app.extensions["celery"])
    message_set_aside.connect(count_set_aside, sender=app.extensions["celery"])


def _count(app: Flask, event: str) -> None:
    try:
        client: SiteRedis = app.extensions["redis"]
        client.hincrby(client.key(COUNTS_KEY), event, 1)
    except redis.RedisError as error:
        logger.warning("Redis is unavailable; one %s event is not counted: %s", event, error)


def _result(name: str, future: Future[Any]) -> Any:
    try:
        return future.result(timeout=0)
    except Exception as error:
        logger.warning("the metrics of the %s are omitted: %s", name, type(error).__name__, exc_info=error)
        return None


def _query_redis() -> RedisValues:
    client = redis_client.connection
    return RedisValues(
        counts=_read_counts(client),
        open_streams=count_open_streams(client),
    )


def _read_counts(client: SiteRedis) -> dict[str, int]:
    """Return all counts. Raises redis.exceptions.RedisError."""
    counts: dict[str, str] = client.hgetall(client.key(COUNTS_KEY))  # type: ignore[assignment]
    return {name: int(count) for name, count in counts.items()}


def _refused(counts: dict[str, int]) -> dict[str, int]:
    """Return the number of refused claims by reason, from the counts that _read_counts() returns."""
    return {name.removeprefix(REFUSED): count for name, count in counts.items() if name.startswith(REFUSED)}


def _database_metrics(snapshot: TaskTableSnapshot) -> Iterator[Metric]:
    yield from _task_metrics(snapshot)
    yield from _job_metrics(snapshot)
    yield from _attempt_metrics(snapshot)
    yield from _mail_metrics(snapshot)
    yield GaugeMetricFamily(
        "microblog_statistics_age_seconds",
        "Age of the aggregated statistics; tasks that ended later are counted from their rows.",
        value=_age(snapshot.rolled_up_until, snapshot.at),
    )


def _task_metrics(snapshot: TaskTableSnapshot) -> Iterator[Metric]:
    launchable = [name for name, task in celery_app().tasks.items() if _launchable(task)]
    names = {name for name, _state in snapshot.finished} | set(launchable)
    finished = CounterMetricFamily("microblog_tasks_finished", "Tasks that ended.", labels=["name", "state"])
    for key in sorted(itertools.product(names, states.FINISHED)):  # with zeros, so that the first is an increase
        finished.add_metric(key, snapshot.finished[key].count if key in snapshot.finished else 0)
    yield finished
    unfinished = GaugeMetricFamily("microblog_tasks_unfinished", "Tasks that have not ended.", labels=["name", "state"])
    for key, sums in sorted(snapshot.unfinished.items()):
        unfinished.add_metric(key, sums.count)
    yield unfinished
    wait = HistogramMetricFamily(
        "microblog_task_wait_seconds",
        "Waiting time of tasks that ended, from when they were ready to their first start.",
        labels=["name"],
    )
    run = HistogramMetricFamily(
        "microblog_task_run_seconds",
        "Running time of tasks that ended, from their first start to their end, including retries.",
        labels=["name"],
    )
    for name, aggregate in _sum_by_name(snapshot.finished).items():
        wait.add_metric([name], *_histogram(aggregate.wait))
        run.add_metric([name], *_histogram(aggregate.run))
    yield from (wait, run)


def _job_metrics(snapshot: TaskTableSnapshot) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "microblog_jobs_finished", "Jobs that ended, by their first task.", labels=["name", "state"]
    )
    for (name, state), aggregate in sorted(snapshot.finished.items()):
        if aggregate.jobs:
            finished.add_metric([name, state], aggregate.jobs)
    yield finished
    names = sorted({name for name, _state in snapshot.finished} | set(snapshot.jobs))
    yield _gauge(
        "microblog_jobs_unfinished",
        "Jobs that have not ended.",
        "name",
        {name: snapshot.jobs[name].count if name in snapshot.jobs else 0 for name in names},
    )
    yield _gauge(
        "microblog_job_age_seconds",
        "Age of the oldest job that has not ended.",
        "name",
        {name: _age(snapshot.jobs[name].oldest, snapshot.at) if name in snapshot.jobs else 0.0 for name in names},
    )


def _attempt_metrics(snapshot: TaskTableSnapshot) -> Iterator[Metric]:
    """Yield metrics by task name, of finished and of unfinished tasks."""
    by_name = _counts_by_name(snapshot)
    for event, documentation in (
        ("attempts", "Times that a worker started a task."),
        ("retries", "Attempts after the first, except those after a worker died."),
        ("crashes", "Workers that died while running a task: leases that expired."),
        ("given_up", "Tasks that were given up because too many workers died while running them."),
    ):
        yield _counter(
            f"microblog_task_{event}", documentation, "name", {name: counts[event] for name, counts in by_name.items()}
        )


def _mail_metrics(snapshot: TaskTableSnapshot) -> Iterator[Metric]:
    """Yield metrics of mails, each of which is sent by one MailTask."""
    sent = failed = 0
    tasks = celery_app().tasks
    mailing = {name for name, task in tasks.items() if isinstance(task, MailTask)}
    for (name, state), aggregate in snapshot.finished.items():
        if name in mailing and state == states.SUCCESS:
            sent += aggregate.count
        elif name in mailing and state == states.FAILURE:
            failed += aggregate.run.count  # without tasks that never started because the previous step failed
    retried = sum(counts["retries"] for name, counts in _counts_by_name(snapshot).items() if name in mailing)
    yield CounterMetricFamily("microblog_mails_sent", "Mails that the server accepted.", value=sent)
    yield CounterMetricFamily("microblog_mails_failed", "Mails that failed permanently.", value=failed)
    yield CounterMetricFamily("microblog_mails_retried", "Retries of sending a mail.", value=retried)


def _redis_metrics(values: RedisValues) -> Iterator[Metric]:
    yield _counter(
        "microblog_claims_refused",
        "Messages that were dropped because their task must not run, such as duplicates.",
        "reason",
        {reason.__name__: 0 for reason in ClaimRefused.__subclasses__()} | _refused(values.counts),
    )
    yield CounterMetricFamily(
        "microblog_messages_relayed",
        "Missing messages that reconcile published again.",
        value=values.counts.get(REPUBLISHED, 0),
    )
    yield CounterMetricFamily(
        "microblog_messages_set_aside",
        "Malformed messages that were set aside.",
        value=values.counts.get(SET_ASIDE, 0),
    )
    yield GaugeMetricFamily(
        "microblog_open_streams", "Open event streams of pages, in all web processes.", value=values.open_streams
    )


def _status_metrics(status: SystemStatus) -> Iterator[Metric]:
    found = Counter(problem.rule for problem in status.problems)
    problems = GaugeMetricFamily(
        "microblog_problems",
        "Problems that a rule of the status finds; none if what it needs is unavailable.",
        labels=["rule", "urgent"],
    )
    for rule in RULES:
        if rule.is_known(status):
            problems.add_metric([rule.name, str(rule.urgent).lower()], found[rule])
    yield problems
    if status.jobs is not None:
        oldest = {tasks.queue: _age(tasks.since, status.at) for tasks in reversed(status.jobs.waiting)}
        yield _gauge(
            "microblog_task_waiting_seconds",
            "Longest time that a task has been waiting to be started, retried or taken over.",
            "queue",
            dict.fromkeys(known_queues(), 0.0) | oldest,
        )
    if status.queues is not None:
        yield from _queue_metrics(status.queues, status.at)
    if status.workers is not None:
        yield from _worker_metrics(status.workers)


def _queue_metrics(measured: list[QueueStats], now: datetime) -> Iterator[Metric]:
    lengths = {queue.name: queue.length for queue in measured}
    yield _gauge("microblog_queue_length", "Messages that no worker has taken.", "queue", lengths)
    yield _gauge(
        "microblog_queue_age_seconds",
        "Age of the next message in the queue.",
        "queue",
        {queue.name: _age(queue.oldest, now) if queue.oldest else 0.0 for queue in measured},
    )
    yield _gauge(
        "microblog_queue_paused",
        "Whether the queue is paused (1) or not (0).",
        "queue",
        {queue.name: int(queue.paused) for queue in measured},
    )


def _worker_metrics(replies: WorkerReplies) -> Iterator[Metric]:
    yield GaugeMetricFamily("microblog_workers_up", "Workers that reply.", value=len(replies.up))
    yield GaugeMetricFamily(
        "microblog_workers_silent", "Workers that should reply and do not.", value=len(replies.silent)
    )


PROBES: dict[str, Callable[[], Any]] = {
    "database": take_snapshot,
    "redis": _query_redis,
}
DESCRIBERS: dict[str, Callable[[Any], Iterable[Metric]]] = {
    "database": _database_metrics,
    "redis": _redis_metrics,
    "status": _status_metrics,
}


def _launchable(task: Any) -> bool:
    """Return whether `task` has a row when it is launched."""
    return isinstance(task, JobTask) and not task.interval_setting and not task.name.startswith("celery.")


def _sum_by_name(finished: Mapping[tuple[str, str], TaskAggregate]) -> dict[str, TaskAggregate]:
    """Return the aggregates by name, summed over all states."""
    sums: dict[str, TaskAggregate] = {}
    for (name, _state), aggregate in sorted(finished.items()):
        sums.setdefault(name, TaskAggregate()).add(aggregate)
    return sums


def _counts_by_name(snapshot: TaskTableSnapshot) -> dict[str, dict[str, int]]:
    counted = {
        name: {
            "attempts": aggregate.attempts,
            "retries": aggregate.attempts + aggregate.given_up - aggregate.wait.count - aggregate.crashes,
            "crashes": aggregate.crashes,
            "given_up": aggregate.given_up,
        }
        for name, aggregate in _sum_by_name(snapshot.finished).items()
    }
    for (name, _state), sums in snapshot.unfinished.items():
        counts = counted.setdefault(name, dict.fromkeys(("attempts", "retries", "crashes", "given_up"), 0))
        counts["attempts"] += sums.attempts
        counts["retries"] += sums.attempts - sums.started - sums.crashes
        counts["crashes"] += sums.crashes
    return dict(sorted(counted.items()))


def _histogram(histogram: DurationHistogram) -> tuple[list[tuple[str, float]], float]:
    counts = histogram.at_most(POWERS)
    bounds = [str(float(2**power)) for power in POWERS]
    return [*zip(bounds, counts, strict=True), ("+Inf", histogram.count)], histogram.seconds


def _gauge(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family


def _counter(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family


def _age(time: datetime, now: datetime) -> float:
    return max(0.0, (now - time).total_seconds())

"""/metrics for Prometheus: values of all processes together, from the database and Redis.

No process counts anything itself, so each web process returns the same, and nothing is lost with a process. A part that
is unavailable omits its own metrics and no others.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Flask
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from microblog.clock import utcnow
from microblog.extensions import redis_client
from microblog.mail.sending import MailTask
from microblog.monitoring import counters, task_snapshot
from microblog.monitoring.queues import QueueStats, known_queues, measure_queues
from microblog.monitoring.rollup import DurationHistogram, TaskAggregate
from microblog.monitoring.status import ConcurrentProbes
from microblog.monitoring.task_snapshot import TaskTableSnapshot
from microblog.monitoring.workers import WorkerReplies, query_workers_about
from microblog.notifications.pubsub import count_listeners
from microblog.taskqueue import states
from microblog.taskqueue.interface import ClaimRefused, celery_app
from microblog.taskqueue.worker import JobTask

logger = logging.getLogger(__name__)

DEADLINE = 5.0  # seconds until a part that has not answered counts as away
PING_TIMEOUT = 1.0  # seconds that a worker has to answer
POWERS = range(-7, 15)  # bounds of the histograms, as powers of two: 8 ms to 4 h 33 min


@dataclass(frozen=True)
class Told:
    """Values from Redis: the lengths of queues, counters, and the number of open streams."""

    lengths: dict[str, int]
    counts: dict[str, int]
    listeners: int


class Metrics:
    """Collects the metrics of all processes whenever it is asked to, and never waits long for a part."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._parts = ConcurrentProbes(app)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that the header `accept` asks for, and the content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client wants it."""
        began = time.perf_counter()
        answers = self._parts.ask(QUESTIONS, DEADLINE)
        for name, describe in DESCRIBED.items():
            answer = _answer(name, answers[name])
            if name in ("database", "redis"):
                up = int(answer is not None)
                yield GaugeMetricFamily(f"microblog_{name}_up", f"Whether the {name} answers (1) or not (0).", value=up)
            if answer is not None:
                with self._app.app_context():
                    yield from describe(answer)
        took = time.perf_counter() - began
        yield GaugeMetricFamily("microblog_scrape_seconds", "How long it took to collect these metrics.", value=took)


def _answer(name: str, answer: Future[Any]) -> Any:
    try:
        return answer.result(timeout=0)
    except Exception as error:
        logger.warning("metrics of %s are left out: %s", name, type(error).__name__, exc_info=error)
        return None


def _ask_redis() -> Told:
    client = redis_client.connection
    return Told(
        lengths={name: int(str(client.llen(name))) for name in known_queues()},
        counts=counters.read(client),
        listeners=count_listeners(client),
    )


def _of_database(seen: TaskTableSnapshot) -> Iterator[Metric]:
    yield from _tasks(seen)
    yield from _jobs(seen)
    yield from _by_name(seen)
    yield from _mails(seen)
    now = utcnow()
    yield _gauge(
        "microblog_task_waiting_seconds",
        "How long the task has been waiting that has waited longest: to begin, to be tried again or taken over.",
        "queue",
        dict.fromkeys(known_queues(), 0.0) | {name: _age(at, now) for name, at in seen.waiting_since.items()},
    )
    yield GaugeMetricFamily(
        "microblog_statistics_age_seconds",
        "How long ago tasks ended that are not in the statistics yet, and are counted from their rows.",
        value=_age(seen.rolled_up_until, now),
    )


def _tasks(seen: TaskTableSnapshot) -> Iterator[Metric]:
    launchable = [name for name, task in celery_app().tasks.items() if _launchable(task)]
    names = {name for name, _state in seen.finished} | set(launchable)
    finished = CounterMetricFamily("microblog_tasks_finished", "Tasks that ended.", labels=["name", "state"])
    for key in sorted(itertools.product(names, states.FINISHED)):  # from zero on, or the first would be no increase
        finished.add_metric(key, seen.finished[key].count if key in seen.finished else 0)
    yield finished
    unfinished = GaugeMetricFamily(
        "microblog_tasks_unfinished", "Tasks that have yet to end.", labels=["name", "state"]
    )
    for key, sums in sorted(seen.unfinished.items()):
        unfinished.add_metric(key, sums.count)
    yield unfinished
    wait = HistogramMetricFamily(
        "microblog_task_wait_seconds",
        "Of tasks that ended, the time from when they could have begun until they did.",
        labels=["name"],
    )
    run = HistogramMetricFamily(
        "microblog_task_run_seconds",
        "Of tasks that ended, the time from when they began, retries and all.",
        labels=["name"],
    )
    for name, figures in _together(seen.finished).items():
        wait.add_metric([name], *_histogram(figures.wait))
        run.add_metric([name], *_histogram(figures.run))
    yield from (wait, run)


def _jobs(seen: TaskTableSnapshot) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "microblog_jobs_finished", "Jobs that ended, by the task that they began with.", labels=["name", "state"]
    )
    for (name, state), figures in sorted(seen.finished.items()):
        if figures.jobs:
            finished.add_metric([name, state], figures.jobs)
    yield finished
    names = sorted({name for name, _state in seen.finished} | set(seen.jobs))
    now = utcnow()
    yield _gauge(
        "microblog_jobs_unfinished",
        "Jobs that have yet to end.",
        "name",
        {name: seen.jobs[name].count if name in seen.jobs else 0 for name in names},
    )
    yield _gauge(
        "microblog_job_age_seconds",
        "How long ago the oldest job was launched that has yet to end.",
        "name",
        {name: _age(seen.jobs[name].oldest, now) if name in seen.jobs else 0.0 for name in names},
    )


def _by_name(seen: TaskTableSnapshot) -> Iterator[Metric]:
    """Yield metrics by task name, of finished and of unfinished tasks."""
    counted = _counted(seen)
    for what, documentation in (
        ("attempts", "Times that a worker began a task."),
        ("retries", "Attempts after the first, but for those after a worker died."),
        ("crashes", "Workers that died under a task: leases that ran out."),
        ("given_up", "Tasks that were given up since too many workers died under them."),
    ):
        yield _counter(
            f"microblog_task_{what}", documentation, "name", {name: of[what] for name, of in counted.items()}
        )


def _mails(seen: TaskTableSnapshot) -> Iterator[Metric]:
    """Yield metrics of mails, each of which is sent by one MailTask."""
    sent = failed = 0
    tasks = celery_app().tasks
    mailing = {name for name, task in tasks.items() if isinstance(task, MailTask)}
    for (name, state), figures in seen.finished.items():
        if name in mailing and state == states.SUCCESS:
            sent += figures.count
        elif name in mailing and state == states.FAILURE:
            failed += figures.run.count  # not those that never began, since the step before failed
    retried = sum(of["retries"] for name, of in _counted(seen).items() if name in mailing)
    yield CounterMetricFamily("microblog_mails_sent", "Mails that the server accepted.", value=sent)
    yield CounterMetricFamily("microblog_mails_failed", "Mails that were given up.", value=failed)
    yield CounterMetricFamily("microblog_mails_retried", "Further attempts to send a mail.", value=retried)


def _of_redis(told: Told) -> Iterator[Metric]:
    yield _gauge("microblog_queue_length", "Messages that no worker has taken.", "queue", told.lengths)
    yield _counter(
        "microblog_claims_refused",
        "Messages that were dropped since their task must not run, as a duplicate's.",
        "reason",
        {reason.__name__: 0 for reason in ClaimRefused.__subclasses__()} | counters.refused(told.counts),
    )
    yield CounterMetricFamily(
        "microblog_messages_relayed",
        "Messages that were missing and that reconcile published.",
        value=told.counts.get(counters.RELAYED, 0),
    )
    yield GaugeMetricFamily(
        "microblog_open_streams", "Pages that listen for events, in all web processes.", value=told.listeners
    )


def _of_queues(measured: list[QueueStats]) -> Iterator[Metric]:
    now = utcnow()
    yield _gauge(
        "microblog_queue_age_seconds",
        "How long ago the message was published whose turn is next.",
        "queue",
        {queue.name: _age(queue.oldest, now) if queue.oldest else 0.0 for queue in measured},
    )
    yield _gauge(
        "microblog_queue_paused",
        "Whether workers were told to take nothing from the queue (1).",
        "queue",
        {queue.name: int(queue.paused) for queue in measured},
    )


def _of_workers(answers: WorkerReplies) -> Iterator[Metric]:
    yield GaugeMetricFamily("microblog_workers_up", "Workers that answer.", value=len(answers.up))
    yield GaugeMetricFamily(
        "microblog_workers_silent", "Workers that should answer and do not.", value=len(answers.silent)
    )


QUESTIONS: dict[str, Callable[[], Any]] = {
    "database": task_snapshot.take_snapshot,
    "redis": _ask_redis,
    "queues": measure_queues,
    "workers": lambda: query_workers_about({"ping": {}}, PING_TIMEOUT),
}
DESCRIBED: dict[str, Callable[[Any], Iterable[Metric]]] = {
    "database": _of_database,
    "redis": _of_redis,
    "queues": _of_queues,
    "workers": _of_workers,
}


def _launchable(task: Any) -> bool:
    """Return whether a task is one of jobs: it gets a row."""
    return isinstance(task, JobTask) and not task.interval_setting and not task.name.startswith("celery.")


def _together(finished: Mapping[tuple[str, str], TaskAggregate]) -> dict[str, TaskAggregate]:
    """Figures of all states together, by name."""
    together: dict[str, TaskAggregate] = {}
    for (name, _state), figures in sorted(finished.items()):
        together.setdefault(name, TaskAggregate()).add(figures)
    return together


def _counted(seen: TaskTableSnapshot) -> dict[str, dict[str, int]]:
    counted = {
        name: {
            "attempts": figures.attempts,
            "retries": figures.attempts + figures.given_up - figures.wait.count - figures.crashes,
            "crashes": figures.crashes,
            "given_up": figures.given_up,
        }
        for name, figures in _together(seen.finished).items()
    }
    for (name, _state), sums in seen.unfinished.items():
        of = counted.setdefault(name, dict.fromkeys(("attempts", "retries", "crashes", "given_up"), 0))
        of["attempts"] += sums.attempts
        of["retries"] += sums.attempts - sums.started - sums.crashes
        of["crashes"] += sums.crashes
    return dict(sorted(counted.items()))


def _histogram(sketch: DurationHistogram) -> tuple[list[tuple[str, float]], float]:
    counts = sketch.at_most(POWERS)
    bounds = [str(float(2**power)) for power in POWERS]
    return [*zip(bounds, counts, strict=True), ("+Inf", sketch.count)], sketch.seconds


def _gauge(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _counter(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _age(time: datetime, now: datetime) -> float:
    return max(0.0, (now - time).total_seconds())

"""The schedule of the chaos runs, and the check for jobs that are published again."""

from __future__ import annotations

import json

import pytest
from flask import Flask

from microblog.taskqueue.celery_settings import QUEUES
from tests.chaos import queue_watch
from tests.chaos.faults import marked_copy
from tests.chaos.queue_watch import QueueWatch
from tests.chaos.schedule import KINDS, plan
from tests.support.servers import RedisServer, wait_for


def _message(task_id: str, published_at: str, retries: int = 0) -> str:
    headers = {"id": task_id, "retries": retries, "published_at": published_at}
    return json.dumps({"headers": headers, "properties": {"delivery_tag": task_id}})


def test_seed_determines_schedule() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


def test_schedule_of_five_minutes_has_every_kind() -> None:
    faults = plan(7, 300)

    assert len(faults) >= 60
    assert {fault.kind for fault in faults} == {kind for kind, _length in KINDS}


def test_only_messages_of_the_same_retry_count_as_published_again(
    app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_watch, "SETTLED", 0)
    key = redis_server.client.key(QUEUES[0])
    watch = QueueWatch(redis_server.client)
    try:
        names = ("copied", "given back", "retried", "twice")
        messages = {id_: _message(id_, "2026-11-29T12:00:00+00:00") for id_ in names}
        redis_server.client.lpush(key, marked_copy(messages["copied"], new_tag=True), *messages.values())
        wait_for(lambda: len(watch.waiting) == 4, what="the messages are seen")
        redis_server.client.lrem(key, 1, messages["copied"])
        later = "2026-11-29T12:00:09+00:00"
        redis_server.client.lpush(key, _message("copied", later), _message("retried", later, retries=1))
        redis_server.client.lpush(key, _message("twice", later), _message("given back", "2026-11-29T11:00:00+00:00"))
        wait_for(lambda: len(watch.waiting) == 7, what="the later messages are seen")
    finally:
        watch.stop()

    assert [again.task_id for again in watch.republications] == ["twice"]

"""Celery's settings for Redis and for tasks that are claimed before they run.

Three settings are not here, since make_celery() takes them from the code: ``task_routes`` (a task names its queue),
``beat_schedule`` (a periodic task names the setting with its interval) and ``result_backend``.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

QUEUES = ("exports", "mail", "default")
LONG_QUEUE = "exports"  # of tasks that may take minutes; they never take all processes of a worker (queues.QueueOrder)
EXCHANGE = Exchange("microblog", type="direct")


def celery_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the Celery app, derived from those of the Flask app (config.py)."""
    return {**_messages(config), **_broker(config), **_results(config), **_tasks(config), **_schedule(config)}


def _messages(config: dict[str, Any]) -> dict[str, Any]:
    return {
        # JSON only, so that a message from another source can at worst be refused.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "task_queues": [Queue(name, EXCHANGE, routing_key=name) for name in QUEUES],
        "task_default_queue": "default",
        # For Flower, and for `celery events`.
        "worker_send_task_events": True,
    }


def _broker(config: dict[str, Any]) -> dict[str, Any]:
    timeout = config["REDIS_TIMEOUT"]
    return {
        "broker_url": config["REDIS_URL"],
        "broker_use_ssl": config["REDIS_TLS"] or None,  # RedBeat uses it, too
        "broker_transport": f"microblog.taskqueue.transport:{'Sentinel' if config['REDIS_SENTINEL'] else ''}Transport",
        # Redis redelivers a message that is not acknowledged within this many seconds. The time must exceed that of any
        # task, or long tasks would be delivered twice. Lost tasks do not wait for it: their leases expire earlier.
        "broker_transport_options": {
            "visibility_timeout": config["TASK_TIME_LIMIT"] + 600,
            "queue_order_strategy": "microblog.taskqueue.queues:QueueOrder",
            "global_keyprefix": config["REDIS_PREFIX"],
            "socket_connect_timeout": timeout,
            # Longer than kombu's blocking read of one second.
            "socket_timeout": timeout + 1,
            "socket_keepalive": True,
            **_sentinel_options(config),
        },
        # If the broker is unavailable, a launch leaves the row unpublished instead of making the user wait.
        "task_publish_retry": False,
        "broker_connection_timeout": timeout,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker never gives up; Celery's default is 100, about 46 minutes
        # Late acknowledgements that fail with the connection are harmless (the claim drops the duplicate), so running
        # tasks continue through a restart of the broker.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _results(config: dict[str, Any]) -> dict[str, Any]:
    timeout = config["REDIS_TIMEOUT"]
    return {
        # A worker retries until Redis has stored a result; it does not retry progress (result_backend.py).
        "result_backend_always_retry": True,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_transport_options": {
            "global_keyprefix": config["REDIS_PREFIX"],
            "retry_policy": {"max_retries": 0},
            **_sentinel_options(config),
        },
        "redis_backend_use_ssl": config["REDIS_TLS"] or None,
        "redis_socket_connect_timeout": timeout,
        "redis_socket_timeout": timeout,
        "redis_socket_keepalive": True,
        "result_expires": config["RESULT_EXPIRES"],
        "result_extended": True,
    }


def _sentinel_options(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options of kombu and of Celery's result backend for Redis Sentinel, or none for one server."""
    if not config["REDIS_SENTINEL"]:
        return {}
    service_name, sentinel_kwargs = (config["REDIS_SENTINEL"][name] for name in ("service_name", "sentinel_kwargs"))
    return {"master_name": service_name, "sentinel_kwargs": sentinel_kwargs}


def _tasks(config: dict[str, Any]) -> dict[str, Any]:
    return {
        # A message is acknowledged when its task has ended, so a worker that dies loses none. If only a child process
        # died, its message is requeued at once; otherwise reconcile publishes it again. The claim drops duplicates.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # One message per process, so that none waits for a long export while another worker is idle.
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "microblog.taskqueue.consumer:Consumer",
        # For `flask tasks worker NAME restart-pool`.
        "worker_pool_restarts": True,
        "task_soft_time_limit": config["TASK_SOFT_TIME_LIMIT"],
        "task_time_limit": config["TASK_TIME_LIMIT"],
        # The claim stores STARTED; Celery would store it before the claim, and for messages that must not run.
        "task_track_started": False,
    }


def _schedule(config: dict[str, Any]) -> dict[str, Any]:
    timeout = config["REDIS_TIMEOUT"]
    return {
        "beat_scheduler": "microblog.taskqueue.scheduler:Scheduler",
        "redbeat_redis_url": "redis-sentinel://" if config["REDIS_SENTINEL"] else config["REDIS_URL"],
        "redbeat_key_prefix": f"{config['REDIS_PREFIX']}redbeat:",
        # A second beat waits for the lock; the lock of a beat that died is free after this many seconds.
        "redbeat_lock_timeout": 15,
        "beat_max_loop_interval": 3,
        "redbeat_redis_options": {
            "socket_connect_timeout": timeout,
            "socket_timeout": timeout,
            **config["REDIS_SENTINEL"],
        },
    }

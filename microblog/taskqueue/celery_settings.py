"""Celery's settings for Redis and for tasks that are claimed before they run.

Three settings are not here, since make_celery() takes them from the code: ``task_routes`` (a task names its queue),
``beat_schedule`` (a periodic task names the setting with its interval) and ``result_backend``.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

QUEUES = ("exports", "mail", "default")
EXCHANGE = Exchange("microblog", type="direct")


def celery_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the Celery app, from the application's own (config.py)."""
    return {**_messages(config), **_broker(config), **_results(config), **_tasks(config), **_schedule(config)}


def _messages(config: dict[str, Any]) -> dict[str, Any]:
    return {
        # JSON only: a message that reaches the broker from elsewhere can at worst be refused.
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
        "broker_transport": "microblog.taskqueue.transport:Transport",
        # Redis hands a message out again after this many seconds without an acknowledgement. It must outlast every
        # task, or long ones would be delivered twice; lost ones need not wait for it, their leases run out first.
        "broker_transport_options": {
            "visibility_timeout": config["TASK_TIME_LIMIT"] + 600,
            "socket_connect_timeout": timeout,
            # Above kombu's own blocking read of one second.
            "socket_timeout": timeout + 1,
            "socket_keepalive": True,
        },
        # A launch that finds the broker away leaves the row unpublished instead of making its reader wait.
        "task_publish_retry": False,
        "broker_connection_timeout": timeout,
        "broker_connection_retry_on_startup": True,
        # Late acknowledgements that fail with the connection are harmless (the claim drops the duplicate), so work
        # under way goes on through a broker's restart.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _results(config: dict[str, Any]) -> dict[str, Any]:
    timeout = config["REDIS_TIMEOUT"]
    return {
        # An outcome waits in the worker until Redis takes it; progress does not (result_backend.py).
        "result_backend_always_retry": True,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_transport_options": {"retry_policy": {"max_retries": 0}},
        "redis_socket_connect_timeout": timeout,
        "redis_socket_timeout": timeout,
        "redis_socket_keepalive": True,
        "result_expires": config["RESULT_EXPIRES"],
        "result_extended": True,
    }


def _tasks(config: dict[str, Any]) -> dict[str, Any]:
    return {
        # A message is acknowledged when its task has ended, so a worker that dies loses none; what it was running
        # goes back at once when a child died, and by reconcile when all of it did. The claim drops duplicates.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # One message per process: none waits for a long export while another worker idles.
        "worker_prefetch_multiplier": 1,
        # For `flask tasks worker NAME restart-pool`.
        "worker_pool_restarts": True,
        "task_soft_time_limit": config["TASK_SOFT_TIME_LIMIT"],
        "task_time_limit": config["TASK_TIME_LIMIT"],
        # The claim stores STARTED; Celery's own would come before it, and for messages that must not run.
        "task_track_started": False,
    }


def _schedule(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "beat_scheduler": "microblog.taskqueue.scheduler:Scheduler",
        "redbeat_redis_url": config["REDIS_URL"],
        "redbeat_key_prefix": "microblog:redbeat:",
        # A second beat waits for the lock; the lock of a beat that died is free after this many seconds.
        "redbeat_lock_timeout": 15,
        "beat_max_loop_interval": 3,
        "redbeat_redis_options": {"retry_period": -1},  # at its start it waits for Redis
    }

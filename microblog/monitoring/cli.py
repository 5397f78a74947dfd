"""``flask tasks``: see and steer the jobs of all users, from a terminal or a script.

Each command exits with 0 if it did what it was asked, 1 if there was nothing to do or the job is not in a state for
it, 2 if it was called wrongly or knows no such job, and 3 if the database or Redis is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from celery.exceptions import BackendStoreError
from flask.cli import AppGroup
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.monitoring import dossier, jobs
from microblog.monitoring.display import NOTHING, duration, moment, print_json, print_table
from microblog.taskqueue import control, states
from microblog.taskqueue.job import Job, find
from microblog.taskqueue.launch import AlreadyRunning

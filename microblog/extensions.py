"""The Flask extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import redis
from celery.exceptions import BackendStoreError
from flask import Flask, current_app
from flask_babel import Babel
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from kombu.exceptions import OperationalError

from microblog.connections import ConnectionPool
from microblog.database import Base
from microblog.smtp import Mail

#: Errors of redis-py, Celery's result backend and kombu if Redis cannot be reached or refuses commands.
REDIS_UNAVAILABLE = (redis.RedisError, BackendStoreError, OperationalError)
#: The same for code that uses a connection of kombu, which does not wrap every socket error.
BROKER_UNAVAILABLE = (*REDIS_UNAVAILABLE, OSError)


# Codes of replies with which Redis refuses commands for some time: a failover, no memory, no disk, too few replicas.
_REFUSALS = ("READONLY", "OOM", "MISCONF", "NOREPLICAS", "UNBLOCKED", "MASTERDOWN", "TRYAGAIN", "BUSY ")


def refuses(error: BaseException) -> bool:
    """Return whether `error` is a reply with which Redis refuses a command for some time."""
    # redis-py removes the code from the text of the errors that have a class of their own.
    return isinstance(error, (redis.ReadOnlyError, redis.exceptions.OutOfMemoryError)) or (
        isinstance(error, redis.ResponseError) and any(code in str(error) for code in _REFUSALS)
    )


class SiteRedis(redis.Redis):
    """A client of a Redis that several sites may share: all keys and channels of this site begin with `prefix`."""

    prefix: str

    @classmethod
    def connect(cls, url: str, prefix: str, service_name: str = "", **options: Any) -> SiteRedis:
        """Return a client for the server at `url`, or with a `service_name`, for the current master of that group.

        `options` are those of redis-py; for a group, they include the ``sentinels`` and do without the URL.
        """
        options["decode_responses"] = True
        client: SiteRedis
        if service_name:
            client = redis.Sentinel(**options).master_for(service_name, cls)  # type: ignore[no-untyped-call]
        else:
            client = cast(SiteRedis, cls.from_url(url, **options))
        client.prefix = prefix
        return client

    def key(self, name: str) -> str:
        """Return the name of a key or channel of this site."""
        return self.prefix + name

    def now(self) -> float:
        """Return the seconds since 1970 by the clock of Redis: those of its clients may differ."""
        seconds, microseconds = self.time()
        return float(seconds + microseconds / 1_000_000)


class RedisClient:
    """The Redis client for everything except Celery's messages and results."""

    def init_app(self, app: Flask) -> None:
        """Create the client for ``REDIS_URL``; it connects on first use."""
        timeout = app.config["REDIS_TIMEOUT"]
        app.extensions["redis"] = SiteRedis.connect(
            app.config["REDIS_URL"],
            app.config["REDIS_PREFIX"],
            socket_connect_timeout=timeout,
            socket_timeout=timeout,
            retry=None,
            **app.config["REDIS_TLS"],
            **app.config["REDIS_SENTINEL"],
        )

    @property
    def connection(self) -> SiteRedis:
        """The current app's client; its connection pool can be used after a fork."""
        client: SiteRedis = current_app.extensions["redis"]
        return client


db = SQLAlchemy(model_class=Base, engine_options={"poolclass": ConnectionPool})
if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model
migrate = Migrate()
login = LoginManager()
mail = Mail()
babel = Babel()
csrf = CSRFProtect()
bootstrap = Bootstrap5()
# Counters are stored in Redis for all web processes; while Redis is unavailable, each process counts in memory.
limiter = Limiter(get_remote_address, in_memory_fallback_enabled=True)
redis_client = RedisClient()


def init_app(app: Flask) -> None:
    """Initialize all extensions but Flask-Babel, which i18n.init_app() configures."""
    db.init_app(app)
    migrate.init_app(app, db, render_as_batch=True)
    login.init_app(app)
    mail.init_app(app)
    csrf.init_app(app)
    bootstrap.init_app(app)
    limiter.init_app(app)
    redis_client.init_app(app)

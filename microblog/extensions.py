"""The Flask extensions, unbound; create_app() binds them. Rooms import them from here and from nowhere else."""

from __future__ import annotations

import redis
from flask import Flask, current_app
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

from microblog.catalogs import Babel
from microblog.database import Base
from microblog.smtp import Mail


class RedisClient:
    """The one place that talks to Redis for everything but Celery's own messages and results."""

    def init_app(self, app: Flask) -> None:
        """Bind to ``REDIS_URL``; nothing is connected before it is used."""
        timeout = app.config["REDIS_TIMEOUT"]
        app.extensions["redis"] = redis.Redis.from_url(
            app.config["REDIS_URL"],
            decode_responses=True,
            socket_connect_timeout=timeout,
            socket_timeout=timeout,
            retry=None,
        )

    @property
    def connection(self) -> redis.Redis:
        """The current app's client, with a pool of its own that survives a fork."""
        client: redis.Redis = current_app.extensions["redis"]
        return client


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
login = LoginManager()
mail = Mail()
babel = Babel()
csrf = CSRFProtect()
bootstrap = Bootstrap5()
# Counts live in Redis, for all web processes; while Redis is away each process counts for itself.
limiter = Limiter(get_remote_address, in_memory_fallback_enabled=True)
redis_client = RedisClient()

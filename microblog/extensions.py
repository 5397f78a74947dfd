"""The Flask extensions, unbound; create_app() binds them."""

from __future__ import annotations

import contextlib
import smtplib
from typing import TYPE_CHECKING

import flask_mail
import redis
from celery.exceptions import BackendStoreError
from flask import Flask, current_app
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from kombu.exceptions import OperationalError as BrokerError

from microblog.database import Base
from microblog.i18n import Babel

#: What redis-py, Celery's result backend and kombu raise while Redis cannot be reached or refuses to work.
REDIS_UNAVAILABLE = (redis.RedisError, BackendStoreError, BrokerError)
#: The same for whoever uses a connection of kombu's, which does not wrap every error of a socket.
BROKER_UNAVAILABLE = (*REDIS_UNAVAILABLE, OSError)


class Connection(flask_mail.Connection):
    """One SMTP session, every exchange of which ends within ``MAIL_TIMEOUT`` seconds."""

    def configure_host(self) -> smtplib.SMTP | smtplib.SMTP_SSL:
        """Connect, greet and sign in. Raises OSError or smtplib.SMTPException."""
        smtp = smtplib.SMTP_SSL if self.mail.use_ssl else smtplib.SMTP
        host = smtp(self.mail.server, self.mail.port, timeout=current_app.config["MAIL_TIMEOUT"])
        try:
            if self.mail.use_tls:
                host.starttls()
            if self.mail.username and self.mail.password:
                host.login(self.mail.username, self.mail.password)
        except BaseException:
            host.close()
            raise
        return host

    def __exit__(self, *error: object) -> None:
        # By now the server has answered for the mail. A goodbye that fails must not make a sent mail look unsent.
        if self.host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.host.quit()


class Mail(flask_mail.Mail):
    """Flask-Mail, handing out :class:`Connection`."""

    def connect(self) -> Connection:
        """A connection to the configured server, for a ``with`` statement; must run in an app context."""
        return Connection(current_app.extensions["mail"])


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
# Counts live in Redis, for all web processes; while Redis is away each process counts for itself.
limiter = Limiter(get_remote_address, in_memory_fallback_enabled=True)
redis_client = RedisClient()

"""All settings of Microblog, read from the environment once, at startup.

The code below names each variable, its unit and its default. If a variable is missing or invalid, the program exits
with one sentence for each such variable (see :func:`load_settings`).
"""

from __future__ import annotations

import hashlib
import os
import re
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import limits
from email_validator import EmailNotValidError, validate_email
from environs import Env, EnvError, ValidationError, validate
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from database_settings import engine_options, sqlite_problem, valid_database_url, with_driver
from redis_settings import DEFAULT_REDIS_URL, certificate_file, parse_redis_url, redis_settings

ROOT = Path(__file__).resolve().parent
DEFAULT_SECRET_KEY = "development-only-never-in-production"  # noqa: S105 - refused in production
ENVIRONMENTS = ("production", "development", "testing")
LANGUAGES = ["en", "es", "ko", "ru"]  # each has a catalog (`make translations`), except English, the source language
MEGABYTE = 1024 * 1024
DAY = 24 * 3600


class ConfigError(SystemExit):
    """A variable is missing or invalid; the message names each such variable."""


def load_settings() -> dict[str, Any]:
    """Return all settings, read from the environment and from ``instance/dev.env``, which ``make run`` writes.

    The mapping is the content of ``app.config``. Raises ConfigError, which ends the program with its message, if a
    variable is missing or invalid.
    """
    env = Env(eager=False)
    instance = Path(env.str("INSTANCE_PATH", str(ROOT / "instance"))).resolve()
    env.read_env(str(instance / "dev.env"), recurse=False, override=False)
    settings = {
        "INSTANCE_PATH": str(instance),
        **_web(env),
        **_limits(env),
        **_lifetimes(env),
        **_stores(env, instance),
        **_mail(env),
        **_exports(env, instance),
        **_imports(env, instance),
        **_tasks(env),
        **_translation(env),
    }
    try:
        env.seal()
    except EnvError as error:
        raise ConfigError(_sentences(error)) from None
    if problem := sqlite_problem(settings["SQLALCHEMY_DATABASE_URI"]):
        raise ConfigError(problem)
    return settings


def _web(env: Env) -> dict[str, Any]:
    # production: SECRET_KEY is required. development: demo data and /dev/mail are available.
    environment = env.str("MICROBLOG_ENV", "production", validate=validate.OneOf(ENVIRONMENTS))
    production = environment == "production"
    return {
        "MICROBLOG_ENV": environment,
        "TESTING": environment == "testing",
        "SECRET_KEY": env.str("SECRET_KEY", validate=_secret_key)
        if production
        else env.str("SECRET_KEY", DEFAULT_SECRET_KEY),
        # The public URL of the site; links in mails start with it.
        "PUBLIC_URL": (env.str("PUBLIC_URL", "http://127.0.0.1:8000", validate=_web_url) or "").rstrip("/"),
        # Number of reverse proxies whose X-Forwarded-* headers are trusted.
        "TRUSTED_PROXIES": env.int("TRUSTED_PROXIES", 0, validate=validate.Range(min=0)),
        "SESSION_COOKIE_SECURE": env.bool("SESSION_COOKIE_SECURE", production),
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "REMEMBER_COOKIE_SECURE": env.bool("SESSION_COOKIE_SECURE", production),
        "REMEMBER_COOKIE_HTTPONLY": True,
        "REMEMBER_COOKIE_SAMESITE": "Lax",
        "WTF_CSRF_TIME_LIMIT": None,  # a CSRF token is valid as long as its session
        "MAX_CONTENT_LENGTH": env.int("MAX_CONTENT_LENGTH", MEGABYTE, validate=_positive),  # bytes
        # Bytes of a urlencoded form, and of one field of a multipart form; far more than the longest text, a message.
        "MAX_FORM_MEMORY_SIZE": 200_000,
        "POSTS_PER_PAGE": env.int("POSTS_PER_PAGE", 25, validate=validate.Range(1, 100)),
        "LANGUAGES": LANGUAGES,
        "BABEL_DEFAULT_LOCALE": "en",
        "BOOTSTRAP_SERVE_LOCAL": True,
        # Seconds between two searches for posts that were inserted without an entry in the search index.
        "SEARCH_INTERVAL": env.float("SEARCH_INTERVAL", 60.0, validate=_positive),
        # "text": a short line per event, for people; "json": an object per event, with all fields.
        "LOG_FORMAT": env.str(
            "LOG_FORMAT",
            "text" if environment == "development" else "json",
            validate=validate.OneOf(["json", "text"]),
        ),
        "LOG_LEVEL": env.str("LOG_LEVEL", "INFO", validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])),
        # The bearer token that Prometheus sends to /metrics; unset: /metrics is disabled.
        "METRICS_TOKEN": env.str("METRICS_TOKEN", None, validate=_token),
    }


def _limits(env: Env) -> dict[str, Any]:
    def rate(name: str, default: str) -> str | None:
        return env.str(name, default, validate=_rate)

    return {
        # Enables all limits below that begin with RATELIMIT_, and STREAMS_PER_USER.
        "RATELIMIT_ENABLED": env.bool("RATELIMIT_ENABLED", True),
        "RATELIMIT_HEADERS_ENABLED": True,
        # Requests to the API with one token, or without a token from one IP address.
        "RATELIMIT_API": rate("RATELIMIT_API", "300 per minute"),
        # Sign-in attempts from one IP address; likewise for each other form that takes a password.
        "RATELIMIT_SIGN_IN": rate("RATELIMIT_SIGN_IN", "10 per minute"),
        # Sign-in attempts for one username from all IP addresses together, which limits distributed guessing. It is
        # more than one address can try within a minute, even across two windows, so that one client cannot lock out a
        # user; with the short window an attacker with many addresses locks out a user only while the attack lasts.
        # Existing sessions and API tokens are not affected.
        "RATELIMIT_SIGN_IN_NAME": rate("RATELIMIT_SIGN_IN_NAME", "30 per minute"),
        # Links mailed to one address, and links to other addresses that one user may request.
        "RATELIMIT_LINKS": rate("RATELIMIT_LINKS", "5 per hour"),
        # Actions of one user: jobs of all kinds, posts, follows and unfollows, messages, translations.
        "RATELIMIT_EXPORT": rate("RATELIMIT_EXPORT", "10 per minute"),
        "RATELIMIT_POST": rate("RATELIMIT_POST", "60 per minute"),
        "RATELIMIT_FOLLOW": rate("RATELIMIT_FOLLOW", "60 per minute"),
        "RATELIMIT_MESSAGE": rate("RATELIMIT_MESSAGE", "30 per minute"),
        "RATELIMIT_TRANSLATE": rate("RATELIMIT_TRANSLATE", "30 per minute"),
        # Event streams that a user may have open in one web process; further pages poll every few seconds.
        "STREAMS_PER_USER": env.int("STREAMS_PER_USER", 50, validate=_positive),
        # API tokens that a user may have.
        "API_TOKENS_PER_USER": env.int("API_TOKENS_PER_USER", 50, validate=_positive),
    }


def _lifetimes(env: Env) -> dict[str, Any]:
    return {
        # Seconds for which a mailed link that sets a password or confirms an address is valid.
        "ACCOUNT_LINK_LIFETIME": env.int("ACCOUNT_LINK_LIFETIME", 3600, validate=_positive),
        # Seconds for which an API token is valid.
        "API_TOKEN_LIFETIME": env.int("API_TOKEN_LIFETIME", 30 * DAY, validate=_positive),
        # Seconds after which notifications are deleted.
        "NOTIFICATION_LIFETIME": env.int("NOTIFICATION_LIFETIME", 90 * DAY, validate=_positive),
        # Seconds between two heartbeats of an event stream, and seconds until the stream ends, so that the browser
        # reconnects and is authenticated again.
        "STREAM_HEARTBEAT": env.float("STREAM_HEARTBEAT", 15.0, validate=_positive),
        "STREAM_LIFETIME": env.float("STREAM_LIFETIME", 3600.0, validate=_positive),
    }


def _stores(env: Env, instance: Path) -> dict[str, Any]:
    default = f"sqlite:///{instance / 'microblog.db'}"
    database_url = env.str("DATABASE_URL", default, validate=valid_database_url) or ""
    return {
        "SQLALCHEMY_DATABASE_URI": with_driver(database_url),
        "SQLALCHEMY_ENGINE_OPTIONS": engine_options(
            database_url,
            # Connections of one process at most; docs/operations.md has the sum of all processes.
            pool_size=env.int("DATABASE_POOL_SIZE", 10, validate=_positive) or 0,
            # Seconds after which PostgreSQL ends a statement, also one that waits for a lock. Migrations have no limit.
            statement_timeout=env.float("DATABASE_STATEMENT_TIMEOUT", 10.0, validate=validate.Range(min=1)) or 0.0,
            # Whether the URL is that of PgBouncer, or of another pooler, in transaction mode.
            pooler=bool(env.bool("DATABASE_POOLER", False)),
        ),
        **_redis(env, _default_redis_prefix(database_url, instance)),
    }


def _default_redis_prefix(database_url: str, instance: Path) -> str:
    """Return a prefix that differs between sites, and is the same in all programs of one: it names their database."""
    try:
        url = make_url(database_url)
    except ArgumentError:  # refused by valid_database_url()
        return ""
    host, database = url.query.get("host", url.host), url.database or ""
    if url.drivername == "sqlite":
        database = str((instance / database).resolve())
    place = f"{host}:{url.port or 5432}/{database}"
    return f"microblog-{hashlib.sha256(place.encode()).hexdigest()[:8]}:"


def _redis(env: Env, default_prefix: str) -> dict[str, Any]:
    return redis_settings(
        # One server (redis://) or a group with Redis Sentinel (sentinel://); redis_settings.py has the forms.
        parse_redis_url(env.str("REDIS_URL", DEFAULT_REDIS_URL, validate=parse_redis_url) or DEFAULT_REDIS_URL),
        # A file with certificates. They verify that of a rediss:// or sentinels:// server, instead of the system's.
        ca_certs=env.str("REDIS_CA_CERTS", None, validate=certificate_file),
        # The beginning of every key, queue and channel in Redis, so that several sites can share one. The default is
        # derived from the address of the database: set this if the programs of a site use different addresses of it,
        # for example because only some of them use a connection pooler.
        prefix=env.str("REDIS_PREFIX", default_prefix, validate=_redis_prefix) or "",
        # Seconds after which a Redis that does not answer counts as unavailable.
        timeout=env.float("REDIS_TIMEOUT", 2.0, validate=_positive) or 0.0,
    )


def _mail(env: Env) -> dict[str, Any]:
    admins: list[str] = env.list("ADMINS", [], validate=_mail_addresses) or []
    return {
        "MAIL_SERVER": env.str("MAIL_SERVER", "127.0.0.1"),
        "MAIL_PORT": env.int("MAIL_PORT", 25, validate=validate.Range(1, 65535)),
        # Encrypt with STARTTLS, or from the beginning of the connection (usually at port 465).
        "MAIL_USE_TLS": env.bool("MAIL_USE_TLS", False),
        "MAIL_USE_SSL": env.bool("MAIL_USE_SSL", False),
        # A file with certificates. They verify that of the SMTP server, instead of the system's.
        "MAIL_CA_CERTS": env.str("MAIL_CA_CERTS", None, validate=certificate_file),
        "MAIL_USERNAME": env.str("MAIL_USERNAME", None),
        "MAIL_PASSWORD": env.str("MAIL_PASSWORD", None),
        "MAIL_SUPPRESS_SEND": False,  # also in tests, which use an SMTP server
        "MAIL_DEFAULT_SENDER": env.str(
            "MAIL_DEFAULT_SENDER", "Microblog <no-reply@microblog.invalid>", validate=_mail_address
        ),
        # Timeout in seconds of each exchange with the SMTP server.
        "MAIL_TIMEOUT": env.float("MAIL_TIMEOUT", 30.0, validate=_positive),
        # Mail addresses, separated by commas, that receive reports of unexpected errors. The first one is the reply
        # address of mails to users.
        "ADMINS": [address.strip() for address in admins],
        # Seconds after which an error report is deleted.
        "ERROR_REPORT_LIFETIME": env.int("ERROR_REPORT_LIFETIME", 30 * DAY, validate=_positive),
        # Seconds after the start of its first attempt until delivery of a mail fails.
        "MAIL_RETRY_WINDOW": env.int("MAIL_RETRY_WINDOW", 3600, validate=_positive),
    }


def _exports(env: Env, instance: Path) -> dict[str, Any]:
    return {
        # A folder that web servers and workers share, or s3://bucket/prefix; boto3 reads AWS_* variables by itself.
        "EXPORT_STORAGE_URL": _storage(env, "EXPORT_STORAGE_URL", instance / "exports"),
        # Bytes; a larger archive is mailed as a link.
        "EXPORT_ATTACHMENT_LIMIT": env.int("EXPORT_ATTACHMENT_LIMIT", 10 * MEGABYTE, validate=validate.Range(min=0)),
        # Seconds for which the link in the mail is valid.
        "EXPORT_LINK_LIFETIME": env.int("EXPORT_LINK_LIFETIME", 7 * DAY, validate=_positive),
        # Seconds after which an archive, or the list of rejected entries of an import, is deleted.
        "EXPORT_LIFETIME": env.int("EXPORT_LIFETIME", 30 * DAY, validate=_positive),
        # Seconds between two runs of the tasks that delete expired data and files left by failures.
        "SWEEP_INTERVAL": env.float("SWEEP_INTERVAL", 60.0, validate=_positive),
    }


def _imports(env: Env, instance: Path) -> dict[str, Any]:
    return {
        # As EXPORT_STORAGE_URL.
        "IMPORT_STORAGE_URL": _storage(env, "IMPORT_STORAGE_URL", instance / "imports"),
        # Bytes of an uploaded file, including the form around it; the default is about a million posts.
        "IMPORT_MAX_SIZE": env.int("IMPORT_MAX_SIZE", 256 * MEGABYTE, validate=_positive),
        # Seconds for which an uploaded file is stored for a retry of a failed or cancelled job.
        "IMPORT_LIFETIME": env.int("IMPORT_LIFETIME", DAY, validate=_positive),
    }


def _tasks(env: Env) -> dict[str, Any]:
    time_limit = env.int("TASK_TIME_LIMIT", 3600, validate=_positive)
    below_time_limit = validate.Range(min=1, max=time_limit, error="Must be positive, and at most TASK_TIME_LIMIT.")
    return {
        # Seconds that a task may run: the soft limit raises an exception in the task, the hard limit kills its process.
        "TASK_SOFT_TIME_LIMIT": env.int(
            "TASK_SOFT_TIME_LIMIT", max(1, (time_limit or 0) * 11 // 12), validate=below_time_limit
        ),
        "TASK_TIME_LIMIT": time_limit,
        # Seconds of a worker's lease on a task, which is renewed four times in that time.
        "TASK_LEASE": env.float("TASK_LEASE", 30.0, validate=validate.Range(min=1)),
        # Seconds for which a stopping worker waits for its running tasks before it releases them.
        "WORKER_STOP_TIMEOUT": env.float("WORKER_STOP_TIMEOUT", 30.0, validate=validate.Range(min=0)),
        # Seconds for which a worker without heartbeats is listed as down; then it is removed from the list.
        "WORKER_FORGOTTEN_AFTER": env.float("WORKER_FORGOTTEN_AFTER", 600.0, validate=_positive),
        # Crashes of a worker during a task after which the task fails.
        "TASK_MAX_CRASHES": env.int("TASK_MAX_CRASHES", 3, validate=_positive),
        # Seconds between two reconciliations, each of which publishes the automatic retries that are due.
        "RECONCILE_INTERVAL": env.float("RECONCILE_INTERVAL", 5.0, validate=_positive),
        # Seconds after which the rows of a finished job are deleted; 0: never.
        "TASK_LIFETIME": env.int("TASK_LIFETIME", 365 * DAY, validate=_lifetime),
        # Seconds between two runs of the task that adds finished tasks to the statistics.
        "ROLL_UP_INTERVAL": env.float("ROLL_UP_INTERVAL", 60.0, validate=_positive),
        # Seconds after which results expire in Redis.
        "RESULT_EXPIRES": env.int("RESULT_EXPIRES", DAY, validate=_positive),
    }


def _translation(env: Env) -> dict[str, Any]:
    return {
        # The URL of a LibreTranslate service; unset: posts cannot be translated, and pages have no button for it.
        "TRANSLATE_URL": env.str("TRANSLATE_URL", None, validate=_service_url),
        "TRANSLATE_API_KEY": env.str("TRANSLATE_API_KEY", None),
        # Seconds after which the service counts as unavailable.
        "TRANSLATE_TIMEOUT": env.float("TRANSLATE_TIMEOUT", 5.0, validate=_positive),
    }


_positive = validate.Range(min=0, min_inclusive=False, error="Must be greater than 0.")


def _lifetime(value: int) -> None:
    if value != 0 and value < DAY:
        raise ValidationError(f"Must be at least {DAY} (a day), or 0 to keep jobs permanently.")


def _secret_key(value: str) -> None:
    if value == DEFAULT_SECRET_KEY or len(value) < 16:
        raise ValidationError(
            "Must be a secret value of at least 16 characters, not the default of development "
            "(python -c 'import secrets; print(secrets.token_hex(32))')."
        )


def _token(value: str | None) -> None:
    if value is not None and len(value) < 16:
        raise ValidationError("Must have at least 16 characters, or be unset.")


def _rate(value: str) -> None:
    try:
        limits.parse_many(value)
    except ValueError:
        raise ValidationError("Must be a rate such as “10 per minute”.") from None


def _web_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise ValidationError("Must be an http:// or https:// URL.")


def _service_url(value: str | None) -> None:
    if value is None:
        return
    _web_url(value)
    if "@" in urlsplit(value).netloc:
        raise ValidationError("Must not contain a username or password; set TRANSLATE_API_KEY instead.")


def _storage_url(value: str) -> None:
    folder = _folder(value)
    usable = Path(folder).is_absolute() or re.fullmatch(r"[^~:/\s][^:/]*(/.*)?", value)
    if not usable and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^?#]*)?", value):
        raise ValidationError("Must be a folder (a path, or file:///path) or a bucket (s3://bucket/prefix).")


def _storage(env: Env, name: str, default: Path) -> str:
    """Return the URL of a bucket, or the absolute path of a folder."""
    value: str = env.str(name, str(default), validate=_storage_url) or ""
    return value if value.startswith("s3://") else str(Path(_folder(value)).absolute())


def _folder(value: str) -> str:
    return os.path.expanduser(value.removeprefix("file://"))


def _mail_address(value: str) -> None:
    mailbox = parseaddr(value)[1].rpartition("@")[0]
    if not mailbox or not mailbox.isascii():  # many mail servers refuse others
        raise ValidationError("Must be a mail address, such as “Microblog <no-reply@example.com>”.")


def _mail_addresses(values: list[str]) -> None:
    for value in values:
        try:
            validate_email(value.strip(), check_deliverability=False, allow_smtputf8=False)
        except EmailNotValidError:
            raise ValidationError("Must be mail addresses, separated by commas.") from None


def _redis_prefix(value: str) -> None:
    # Without the characters of patterns and of Redis Cluster's hash tags.
    if not re.fullmatch(r"[A-Za-z0-9_.:/-]{1,100}", value):
        raise ValidationError("Must be 1 to 100 letters, digits or characters of _.:/-")


def _sentences(error: EnvError) -> str:
    messages = getattr(error, "error_messages", None) or {"environment": [str(error)]}
    return "\n".join(f"{name}: {' '.join(map(str, texts))}" for name, texts in messages.items())

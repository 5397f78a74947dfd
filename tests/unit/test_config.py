"""A wrong or missing setting stops the program at start with an error that names it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from config import ConfigError, load_settings
from tests.support import programs

VALID = {"MICROBLOG_ENV": "production", "SECRET_KEY": "0123456789abcdef0123456789abcdef"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A valid production environment, independent of the developer's own instance folder."""
    for name in ("DATABASE_URL", "REDIS_URL", "PORT", "RATELIMIT_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (VALID | {"INSTANCE_PATH": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)


def test_valid_environment_has_types_and_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXPORT_ATTACHMENT_LIMIT", "123")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:word@db/microblog")

    settings = load_settings()

    assert settings["EXPORT_ATTACHMENT_LIMIT"] == 123
    assert settings["EXPORT_LINK_LIFETIME"] == 7 * 24 * 3600
    assert settings["SQLALCHEMY_DATABASE_URI"] == "postgresql+psycopg://user:word@db/microblog"
    assert settings["EXPORT_STORAGE_URL"] == str(tmp_path / "exports")
    assert settings["SESSION_COOKIE_SECURE"] is True


@pytest.mark.parametrize("url", [None, "sqlite:////srv/microblog.db"])
def test_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch, url: str | None) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    if url:
        monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(ConfigError, match=r"^DATABASE_URL: SQLite 3\.35 or newer is needed, and Python has 3\.34\.1;"):
        load_settings()
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/microblog")
    assert load_settings()


@pytest.mark.parametrize(("name", "log_format"), [("production", "json"), ("development", "text")])
def test_logs_are_text_in_development_only(monkeypatch: pytest.MonkeyPatch, name: str, log_format: str) -> None:
    monkeypatch.setenv("MICROBLOG_ENV", name)

    assert load_settings()["LOG_FORMAT"] == log_format


def test_secret_key_is_required_outside_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")

    with pytest.raises(ConfigError, match=r"^SECRET_KEY: "):
        load_settings()
    monkeypatch.setenv("MICROBLOG_ENV", "development")
    assert load_settings()["SECRET_KEY"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MICROBLOG_ENV", "prod"),
        ("SECRET_KEY", "short"),
        ("METRICS_TOKEN", "short"),
        ("DATABASE_URL", "no url"),
        ("DATABASE_URL", "mysql://host/name"),
        ("DATABASE_URL", "postgresql://host:port/name"),
        ("DATABASE_URL", "postgresql+psycopg2://host/name"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_STATEMENT_TIMEOUT", "0.5"),
        ("DATABASE_POOLER", "perhaps"),
        ("EXPORT_STORAGE_URL", "nonsense://bucket"),
        ("EXPORT_STORAGE_URL", "s3://"),
        ("EXPORT_STORAGE_URL", "s3:bucket"),
        ("EXPORT_STORAGE_URL", "s3://bucket/prefix?region=eu"),
        ("EXPORT_STORAGE_URL", ""),
        ("EXPORT_STORAGE_URL", " "),
        ("EXPORT_STORAGE_URL", "s3:///prefix"),
        ("EXPORT_STORAGE_URL", "file://exports"),
        ("EXPORT_STORAGE_URL", "file:exports"),
        ("IMPORT_STORAGE_URL", "~no-such-user/imports"),
        ("MAIL_DEFAULT_SENDER", "nobody"),
        ("MAIL_DEFAULT_SENDER", "Jürgen <jürgen@example.com>"),
        ("ADMINS", "root@example.com,nobody"),
        ("ADMINS", "jürgen@example.com"),
        ("IMPORT_STORAGE_URL", "nonsense://bucket"),
        ("IMPORT_MAX_SIZE", "0"),
        ("REDIS_URL", "http://host"),
        ("REDIS_URL", "redis://host:port"),
        ("REDIS_URL", "redis://host/nonsense"),
        ("REDIS_URL", "redis://host?ssl_cert_reqs=none"),
        ("REDIS_URL", "rediss://host?ssl_cert_reqs=perhaps"),
        ("REDIS_URL", "rediss://host?ssl_ca_certs=/no/such/file"),
        ("REDIS_URL", "rediss://host?timeout=5"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("REDIS_URL", "sentinel://host"),
        ("REDIS_URL", "sentinel://host?master="),
        ("REDIS_URL", "sentinel://?master=name"),
        ("REDIS_URL", "sentinel://host,?master=name"),
        ("REDIS_URL", "sentinel://host;sentinel://other?master=name"),
        ("REDIS_URL", "sentinel://host:port?master=name"),
        ("REDIS_URL", "sentinel://host:99999?master=name"),
        ("REDIS_URL", "sentinel://host/nonsense?master=name"),
        ("REDIS_URL", "sentinel://host?master=name&ssl_cert_reqs=none"),
        ("REDIS_URL", "sentinels://host?master=name&ssl_ca_certs=/no/such/file"),
        ("REDIS_URL", "redis-cluster://host"),
        ("REDIS_CA_CERTS", "/no/such/file"),
        ("REDIS_CA_CERTS", __file__),
        ("MAIL_CA_CERTS", "/no/such/file"),
        ("MAIL_CA_CERTS", __file__),
        ("PUBLIC_URL", "example.com"),
        ("PUBLIC_URL", "http://["),
        ("TRANSLATE_URL", "translate.example.com"),
        ("TRANSLATE_URL", "https://name:word@translate.example.com"),
        ("TRANSLATE_TIMEOUT", "0"),
        ("RATELIMIT_TRANSLATE", "often"),
        ("MAIL_PORT", "99999"),
        ("MAIL_USE_TLS", "perhaps"),
        ("EXPORT_ATTACHMENT_LIMIT", "10 MB"),
        ("EXPORT_LINK_LIFETIME", "-1"),
        ("TASK_LEASE", "0"),
        ("TASK_TIME_LIMIT", "soon"),
        ("RATELIMIT_ENABLED", "maybe"),
        ("RATELIMIT_SIGN_IN", "often"),
        ("RATELIMIT_SIGN_IN_NAME", "often"),
        ("STREAMS_PER_USER", "0"),
        ("RATELIMIT_MESSAGE", "seldom"),
        ("NOTIFICATION_LIFETIME", "0"),
        ("TASK_SOFT_TIME_LIMIT", "7200"),
    ],
)
def test_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as raised:
        load_settings()

    assert str(raised.value).startswith(f"{name}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("~/exports/", "/home/site/exports"),
        ("file:///srv/exports/", "/srv/exports"),
        ("exports", str(Path.cwd() / "exports")),
        ("s3://bucket/prefix/", "s3://bucket/prefix/"),
    ],
)
def test_storage_is_absolute_folder_or_bucket(monkeypatch: pytest.MonkeyPatch, value: str, url: str) -> None:
    monkeypatch.setenv("HOME", "/home/site")
    monkeypatch.setenv("EXPORT_STORAGE_URL", value)

    assert load_settings()["EXPORT_STORAGE_URL"] == url


@pytest.mark.parametrize(
    ("url", "sentinels", "credentials", "for_kombu"),
    [
        ("sentinel://host?master=name", [("host", 26379)], (None, None), ["sentinel://host:26379/0"]),
        (
            "sentinel://:a%3Bb%40c@host:1,other/3?master=name",
            [("host", 1), ("other", 26379)],
            (None, "a;b@c"),
            ["sentinel://:a%3Bb%40c@host:1/3", "sentinel://:a%3Bb%40c@other:26379/3"],
        ),
        (
            "sentinels://user:word@10.0.0.1,[::1]:2/0?master=name&ssl_cert_reqs=none",
            [("10.0.0.1", 26379), ("::1", 2)],
            ("user", "word"),
            ["sentinel://user:word@10.0.0.1:26379/0", "sentinel://user:word@[::1]:2/0"],
        ),
    ],
)
def test_url_of_sentinels_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    sentinels: list[tuple[str, int]],
    credentials: tuple[str | None, str | None],
    for_kombu: list[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    settings = load_settings()

    assert settings["REDIS_URL"].split(";") == for_kombu
    sentinel = settings["REDIS_SENTINEL"]
    assert (sentinel["service_name"], sentinel["sentinels"]) == ("name", sentinels)
    assert (sentinel["username"], sentinel["password"]) == credentials
    assert sentinel["sentinel_kwargs"]["password"] is None
    assert sentinel["ssl"] is sentinel["sentinel_kwargs"]["ssl"] is bool(settings["REDIS_TLS"])


@pytest.mark.parametrize("url", ["redis://:secret@host/nonsense", "sentinel://:secret@host", "http://:secret@host"])
def test_password_of_invalid_url_is_not_printed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    with pytest.raises(ConfigError) as raised:
        load_settings()

    assert "secret" not in str(raised.value)


def test_all_invalid_settings_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PORT", "x")
    monkeypatch.setenv("REDIS_URL", "x")

    with pytest.raises(ConfigError) as raised:
        load_settings()

    assert sorted(line.split(":")[0] for line in str(raised.value).splitlines()) == ["MAIL_PORT", "REDIS_URL"]


@pytest.mark.parametrize(
    "command", [["flask", "routes"], ["celery", "-A", "celery_app", "report"]], ids=["flask", "celery"]
)
def test_programs_exit_without_traceback_on_invalid_setting(tmp_path: Path, command: list[str]) -> None:
    environment = os.environ | {"REDIS_URL": "nonsense", "INSTANCE_PATH": str(tmp_path)}

    program = programs.run(command, environment)

    assert program.returncode != 0
    assert "REDIS_URL: " in program.stderr
    assert "Traceback" not in program.stderr + program.stdout

"""A wrong or missing setting stops the program at start with an error that names it."""

from __future__ import annotations

import os
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
        ("EXPORT_STORAGE_URL", "nonsense://bucket"),
        ("MAIL_DEFAULT_SENDER", "nobody"),
        ("ADMINS", "root@example.com,nobody"),
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
        ("REDIS_URL", "redis-cluster://host"),
        ("REDIS_CA_CERTS", "/no/such/file"),
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

"""The environment of the programs of `make run`, also written to a file for use in a second terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from microblog.development.console import colours_wanted

HOST = "127.0.0.1"
# Unless given otherwise. With these, the jobs of a killed worker run again within 10 seconds, instead of 40.
DEFAULTS = {"TASK_LEASE": "6", "RECONCILE_INTERVAL": "2"}
# The variables that `flask tasks …` or `celery inspect …` in a second terminal need to reach the running system.
SHARED = ("MICROBLOG_ENV", "REDIS_URL", "REDIS_PREFIX", "DATABASE_URL", "MAIL_SERVER", "MAIL_PORT", "PUBLIC_URL")


def compose(given: Mapping[str, str], port: int, redis_url: str, mail_port: int) -> dict[str, str]:
    """Return the environment of a system at `port`: `given`, overridden by the settings of development.

    An empty variable in ``SHARED`` counts as not given.
    """
    environment = {name: value for name, value in given.items() if value or name not in SHARED}
    scripts = Path(sys.executable).parent
    return (
        DEFAULTS
        | environment
        | {
            "MICROBLOG_ENV": "development",
            "HOST": HOST,
            "PORT": str(port),
            "PUBLIC_URL": f"http://{HOST}:{port}",
            "REDIS_URL": redis_url,
            "MAIL_SERVER": HOST,
            "MAIL_PORT": str(mail_port),
            "PATH": os.pathsep.join([str(scripts), given.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
            "CELERY_QUIET": "true",  # no banners
            # The output of the programs goes through pipes, so they cannot find out themselves.
            "FORCE_COLOR" if colours_wanted() else "NO_COLOR": "1",
        }
    )


def share(environment: Mapping[str, str], file: Path) -> None:
    """Write the ``SHARED`` part of `environment` to `file`, which config.load_settings() reads."""
    lines = ["# Written by `make run`: how to reach the system that it started last."]
    lines += [f"{name}={_quoted(environment[name])}" for name in SHARED if name in environment]
    temporary = file.with_suffix(".tmp")
    # A database URL may hold a password.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write("\n".join(lines) + "\n")
    temporary.replace(file)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'" if escaped != value or set(value) & set(' #$"`;&|()<>*?~') else value

"""PgBouncer in front of a PostgreSQL server, in transaction mode: a session serves many clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from microblog.development.process_manager import ManagedProcess
from tests.support import external
from tests.support.servers import Postgres, free_port, unprivileged_user

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server_port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
"""


@contextlib.contextmanager
def pgbouncer(server: Postgres, sessions: int) -> Iterator[Postgres]:
    """Run PgBouncer with at most `sessions` sessions of `server` for each database; yield it as a server."""
    binary, user = external.PGBOUNCER.require(), unprivileged_user()  # it refuses to run as root
    pooler = Postgres(free_port())
    folder = tempfile.mkdtemp(prefix="microblog-pgbouncer-")
    file = Path(folder, "pgbouncer.ini")
    file.write_text(_SETTINGS.format(server_port=server.port, port=pooler.port, sessions=sessions))
    if user:
        shutil.chown(folder, user)
    process = ManagedProcess(
        [binary, "--quiet", str(file)], os.environ, stdout=subprocess.DEVNULL, folder=Path("/"), user=user
    )
    try:
        pooler.wait()
        yield pooler
    finally:
        process.kill()
        shutil.rmtree(folder)

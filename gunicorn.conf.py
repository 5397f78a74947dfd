"""Gunicorn configuration: one process serves thousands of open event streams, each in a greenlet.

The gevent worker patches the standard library before it imports the application, so that psycopg, redis and smtplib
yield to other greenlets. Preloading the application would reverse that order.
"""

import os
import resource
import sys

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "gevent"
preload_app = False

# Open connections per process, event streams included.
worker_connections = 20_000
# Each connection needs a file descriptor. The usual soft limit is 1,024; a process may raise it to the hard limit.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_needed = worker_connections + 1_000
if _soft != resource.RLIM_INFINITY and _soft < _needed:
    _raised = _needed if _hard == resource.RLIM_INFINITY else min(_needed, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_raised, _hard))

# Seconds that open requests have to finish when the server stops. A browser reconnects an interrupted stream.
graceful_timeout = 5
# Seconds without a heartbeat after which a worker process is replaced.
timeout = 30

# The application logs each request; gunicorn logs only warnings and errors.
accesslog = None
loglevel = "warning"
# The control socket would be in the home directory, shared by all projects of a user.
control_socket_disable = True


def post_worker_init(worker):
    """Stop the server if the schema of the database is older than this release, or a storage cannot be used."""
    from microblog.database import check_schema
    from microblog.monitoring.storage_reports import start_in_web_server

    check_schema(worker.wsgi)
    start_in_web_server(worker.wsgi)


def worker_exit(server, worker):
    """Stop the server if a process cannot start because of a setting; gunicorn would start it again and again."""
    error = sys.exc_info()[1]
    if not worker.booted and isinstance(error, SystemExit) and isinstance(error.code, str):
        print(error.code, file=sys.stderr)
        sys.exit(server.WORKER_BOOT_ERROR)

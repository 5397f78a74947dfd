"""How the web server runs: one process holds thousands of open event streams, each in a greenlet.

Gunicorn's gevent worker patches the standard library before it imports the application, so psycopg, redis and
smtplib yield to other greenlets by themselves. That order is why the application is never preloaded.
"""

import os
import resource

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "gevent"
preload_app = False

# Open connections per process, event streams included.
worker_connections = 20_000
# Each of them needs a file descriptor. The usual soft limit is 1,024; a process may raise it to its hard one.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_needed = worker_connections + 1_000
if _soft != resource.RLIM_INFINITY and _soft < _needed:
    _raised = _needed if _hard == resource.RLIM_INFINITY else min(_needed, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_raised, _hard))

# Seconds that open requests have to end once the server is told to. A browser reopens a stream that is cut.
graceful_timeout = 5
# Seconds without a sign of life from a process before it is replaced.
timeout = 30

# The application writes one line for each request; gunicorn says only what is wrong.
accesslog = None
loglevel = "warning"
# The control socket would lie in the home folder, one for all projects of a user.
control_socket_disable = True

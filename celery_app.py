"""The Celery app of `celery -A celery_app worker|beat|inspect|control|events`; see microblog/taskqueue/worker.py."""

from microblog import create_app

app = create_app().extensions["celery"]

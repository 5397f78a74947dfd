"""`celery -A celery_app worker|beat|inspect|control|events`. The app is made in microblog/taskqueue/worker.py."""

from microblog import create_app

app = create_app().extensions["celery"]

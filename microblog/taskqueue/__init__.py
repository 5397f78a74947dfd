"""The engine between Flask and Celery. It depends on no feature; see docs/architecture.md."""

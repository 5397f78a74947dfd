"""The engine between Flask and Celery. It knows no feature; see docs/architecture.md."""

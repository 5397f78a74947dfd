"""The engine between Flask and Celery. It knows no feature; docs/architecture.md tells how it keeps its promises."""

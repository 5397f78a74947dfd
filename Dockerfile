# One image for web, worker, beat and migrations; docker-compose.yml says which of them a container is.

FROM python:3.12-slim AS build
COPY requirements.txt .
# What only `make run` needs (its mailbox, its process manager) stays out of the image.
RUN python -m venv /opt/venv \
    && grep -vE '^(aiosmtpd|honcho)==' requirements.txt > production.txt \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r production.txt

FROM python:3.12-slim
# /data is what must outlive a container: the archives, unless EXPORT_STORAGE_URL names another place.
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent microblog \
    && install -d -o microblog -g microblog /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    INSTANCE_PATH=/data
WORKDIR /app
COPY . .
RUN pybabel compile -d microblog/translations
USER microblog
VOLUME /data
EXPOSE 8000
CMD ["gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"]

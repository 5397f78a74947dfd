# One image for web, worker, beat and migrations; docker-compose.yml sets the command of each container.

FROM python:3.12-slim AS build
COPY requirements.txt .
# The image does not include the packages that only `make run` needs (SMTP server, process manager).
RUN python -m venv /opt/venv \
    && grep -vE '^(aiosmtpd|honcho)==' requirements.txt > production.txt \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r production.txt

FROM python:3.12-slim
# /data contains the files that must outlive a container: archives, unless EXPORT_STORAGE_URL is set.
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

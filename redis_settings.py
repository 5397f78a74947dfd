"""The settings of all clients of Redis, made from ``REDIS_URL``.

The URL names one server. For a group of servers with Redis Sentinel, it names the sentinels, separated by commas, and
the group as it is called in their configuration::

    redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
    sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/DATABASE]?master=NAME

USER and PASSWORD are those of the Redis servers, percent-encoded; the sentinels are queried without a password. A
``rediss://`` or ``sentinels://`` URL encrypts all connections, also those to the sentinels.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from environs import ValidationError

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
SENTINEL_PORT = 26379
_SENTINEL_SCHEMES = ("sentinel", "sentinels")
_TLS_SCHEMES = ("rediss", "sentinels")
_HOST = re.compile(r"(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d+)?")


@dataclass(frozen=True)
class RedisAddress:
    """The parts of a valid ``REDIS_URL``.

    `url` is the URL for kombu and Celery, which expect a complete URL for each sentinel. `sentinel` are arguments of
    redis.Sentinel, and the name of the group as ``service_name``; it is empty for one server. `tls` are the options of
    redis-py for TLS, empty without it.
    """

    url: str
    sentinel: dict[str, Any]
    tls: dict[str, Any]


def redis_settings(address: RedisAddress, ca_certs: str | None, prefix: str, timeout: float) -> dict[str, Any]:
    """Return what the clients of Redis need: those of this project, of Flask-Limiter, kombu, Celery and RedBeat."""
    timeouts = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
    tls = {"ssl_ca_certs": ca_certs, **address.tls} if address.tls and ca_certs else address.tls
    sentinel: dict[str, Any] = {}
    storage_url, storage_options = address.url, {"key_prefix": f"{prefix}limits", **timeouts, **tls}
    if address.sentinel:
        # Without these two, Flask-Limiter would send the credentials of Redis to the sentinels.
        no_credentials = {"username": None, "password": None}
        sentinel_kwargs = {**no_credentials, "retry": None, **timeouts, "ssl": bool(tls), **tls}
        sentinel = {**address.sentinel, "ssl": bool(tls), "sentinel_kwargs": sentinel_kwargs}
        storage_options |= {**sentinel, "use_replicas": False}
        hosts = [f"{_bracketed(host)}:{port}" for host, port in storage_options.pop("sentinels")]
        storage_url = f"redis+sentinel://{','.join(hosts)}"
    return {
        "REDIS_URL": address.url,
        # Options of redis-py for TLS. The certificate of the server is verified, with the certificates of the file
        # REDIS_CA_CERTS or those of the system, unless the URL says ssl_cert_reqs=none.
        "REDIS_TLS": tls,
        # Arguments of redis.Sentinel, and the service_name of the group; empty for one server.
        "REDIS_SENTINEL": sentinel,
        "REDIS_PREFIX": prefix,
        "REDIS_TIMEOUT": timeout,
        "RATELIMIT_STORAGE_URI": storage_url,
        "RATELIMIT_STORAGE_OPTIONS": storage_options,
    }


def parse_redis_url(value: str) -> RedisAddress:
    """Return the parts of ``REDIS_URL``. Raises ValidationError with a sentence, which does not contain the URL."""
    url, _, query = value.partition("?")
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss", *_SENTINEL_SCHEMES):
        raise ValidationError(
            "Must be a redis://, rediss://, sentinel:// or sentinels:// URL; Unix sockets and Redis Cluster are not "
            "supported."
        )
    try:
        parameters = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        if scheme in _SENTINEL_SCHEMES:
            url, sentinel = _sentinels(rest, parameters.pop("master"))
        else:
            url, sentinel = _server(url), {}
        tls = _tls(parameters) if scheme in _TLS_SCHEMES else {}
        if parameters:
            raise ValueError("unknown parameters")
    except (ValueError, KeyError):
        raise ValidationError(_expected_form(scheme)) from None
    certificate_file(tls.get("ssl_ca_certs"))
    return RedisAddress(url, sentinel, tls)


def certificate_file(value: str | None) -> None:
    """Check that the file `value` contains certificates, unless it is None. Raises ValidationError."""
    if value is None:
        return
    if not Path(value).is_file():
        raise ValidationError(f"There is no file {value}.")
    try:
        ssl.create_default_context(cafile=value)
    except OSError as error:
        raise ValidationError(f"The file {value} cannot be read as certificates in PEM format ({error}).") from None


def _server(url: str) -> str:
    """Return `url` if it is a valid URL of one server. Raises ValueError."""
    redis.ConnectionPool.from_url(url)
    _database(urlsplit(url).path)
    return url


def _sentinels(rest: str, service_name: str) -> tuple[str, dict[str, Any]]:
    """Return the URL for kombu and the arguments of redis.Sentinel, from a URL without scheme and query.

    Raises ValueError.
    """
    place, _, path = rest.partition("/")
    userinfo, at, hosts = place.rpartition("@")
    username, _, password = map(unquote, userinfo.partition(":"))
    sentinels = [_host_and_port(host) for host in hosts.split(",")]
    database = _database(path)
    if not service_name:
        raise ValueError("no name of the master")
    # Quoted again, since kombu and Celery split their URL at each semicolon.
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}{at}" if at else ""
    urls = [f"sentinel://{credentials}{_bracketed(host)}:{port}/{database}" for host, port in sentinels]
    return ";".join(urls), {
        "sentinels": sentinels,
        "service_name": service_name,
        "username": username or None,
        "password": password or None,
        "db": database,
    }


def _host_and_port(text: str) -> tuple[str, int]:
    """Return the address of a sentinel. Raises ValueError."""
    if not _HOST.fullmatch(text):
        raise ValueError("no host")
    parts = urlsplit(f"//{text}")
    return str(parts.hostname), parts.port or SENTINEL_PORT


def _bracketed(host: str) -> str:
    """Return `host` as in a URL, where an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host else host


def _database(path: str) -> int:
    """Return the number of a database from the path of a URL. Raises ValueError."""
    number = path.strip("/")
    if number and not number.isdecimal():
        raise ValueError("no number of a database")
    return int(number or 0)


def _tls(parameters: dict[str, str]) -> dict[str, Any]:
    """Return the options of TLS, and remove them from the `parameters` of a URL. Raises KeyError if one is invalid."""
    verify = parameters.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    tls = {"ssl_cert_reqs": ssl.VerifyMode[f"CERT_{verify.upper()}"], "ssl_check_hostname": verify == "required"}
    ca_certs = parameters.pop("ssl_ca_certs", None)
    return tls | ({"ssl_ca_certs": ca_certs} if ca_certs else {})


def _expected_form(scheme: str) -> str:
    """Return a sentence about the URLs of a valid scheme."""
    if scheme in _SENTINEL_SCHEMES:
        form, encrypted = "sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/DATABASE]?master=NAME", "sentinels"
    else:
        form, encrypted = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", "rediss"
    return (
        f"Must have the form {form}; only {encrypted}:// URLs may have the parameters ssl_cert_reqs (required, "
        "optional or none) and ssl_ca_certs (a file)."
    )

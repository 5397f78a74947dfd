"""Pages, mails and jobs in the language of their user, with times in the user's time zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, g
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import elapsed
from microblog.database import DatabaseUnavailable
from microblog.exports.emails import archive_email
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.i18n import format_day, format_moment
from microblog.jobs.models import find_job
from microblog.jobs.services import retry_job
from microblog.monitoring.web import admin
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import not_none
from tests.support.clients import PASSWORD, sign_in
from tests.support.factories import crash, make_older, rows_of
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # translation does not depend on the database

SIGN_IN = {"en": "Sign in", "es": "Iniciar sesión", "ko": "로그인", "ru": "Войти"}
NOT_FOUND = {
    "en": "There is nothing at this address.",
    "es": "No hay nada en esta dirección.",
    "ko": "이 주소에는 아무것도 없습니다.",
    "ru": "По этому адресу ничего нет.",
}


def accept_language(language: str) -> dict[str, str]:
    return {"Accept-Language": language}


def choose(browser: FlaskClient, **choice: str) -> Any:
    user = {"username": "susan", "about_me": ""}
    return browser.post("/edit_profile", data=user | choice, follow_redirects=True)


@pytest.mark.parametrize("language", SIGN_IN)
def test_pages_follow_accept_language(client: FlaskClient, language: str) -> None:
    for header in (language, f"{language}-419, tlh;q=0.8", f"tlh, {language};q=0.5"):
        page = client.get("/auth/login", headers=accept_language(header))
        error = client.get("/nothing", headers=accept_language(header))

        assert f'<html lang="{language}"' in page.text
        assert f"<h1>{SIGN_IN[language]}</h1>" in page.text
        assert f'<html lang="{language}"' in error.text
        assert NOT_FOUND[language] in error.text


@pytest.mark.parametrize("language", SIGN_IN)
def test_every_page_renders_in_every_language(
    app: Flask,
    signed_in: Callable[..., FlaskClient],
    make_user: Callable[..., User],
    monkeypatch: pytest.MonkeyPatch,
    language: str,
) -> None:
    monkeypatch.setattr(admin, "TIMEOUT", 0.05)  # there is no worker to wait for
    user = make_user("susan")
    user.is_operator = True
    db.session.add(Post(user_id=user.id, body="Hello"))
    user.launch_task("export_posts", "Exporting")
    db.session.commit()
    browser = signed_in(user)
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in not_none(rule.methods) and not rule.arguments]
    paths = {rule.rule for rule in rules} - {"/notifications/stream", "/admin/stream", "/readyz"}

    pages = {path: browser.get(path, headers=accept_language(language)) for path in (*paths, "/user/susan")}

    assert {path: page.status_code for path, page in pages.items() if page.status_code >= 500} == {}
    html = {path: page for path, page in pages.items() if page.mimetype == "text/html" and page.status_code == 200}
    assert {"/", "/tasks", "/edit_profile", "/admin/tasks", "/admin/status", "/user/susan"} <= html.keys()
    assert [path for path, page in html.items() if f'<html lang="{language}"' not in page.text] == []


def test_profile_locale_overrides_accept_language(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    user = make_user("susan")
    browser = signed_in(user)

    saved = choose(browser, locale="ko")
    other_browser = signed_in(user)

    assert "프로필을 저장했습니다." in saved.text
    for each_browser in (browser, other_browser):
        assert '<html lang="ko"' in each_browser.get("/", headers=accept_language("ru")).text
        assert NOT_FOUND["ko"] in each_browser.get("/nothing", headers=accept_language("ru")).text

    choose(browser, locale="")

    assert '<html lang="ru"' in browser.get("/", headers=accept_language("ru")).text


def test_unknown_language_or_time_zone_is_refused(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    user = make_user("susan")
    browser = signed_in(user)

    for choice in ({"locale": "tlh"}, {"timezone": "Europe/Atlantis"}, {"timezone": "../../etc/passwd"}):
        page = browser.post("/edit_profile", data={"username": "susan", "about_me": "", **choice})
        assert page.status_code == 422
        assert "Not a valid choice" in page.text

    db.session.expire_all()
    assert (user.locale, user.timezone) == (None, None)


def test_anonymous_user_switches_language(client: FlaskClient) -> None:
    page = client.get("/auth/login")
    assert all(name in page.text for name in ("English", "Español", "한국어", "Русский"))

    response = client.post("/language", data={"language": "ru"}, headers={"Referer": "http://localhost/auth/register"})

    assert response.location == "/auth/register"
    assert '<html lang="ru"' in client.get("/auth/login", headers=accept_language("es")).text
    refused = client.post("/language", data={"language": "tlh"})
    assert refused.status_code == 400
    assert "Такого языка здесь нет." in refused.text


def test_database_unavailable_page_is_translated(
    make_app: Callable[..., Flask], make_user: Callable[..., User]
) -> None:
    app = make_app(TESTING=False)
    make_user("susan").locale = "es"
    db.session.commit()
    browser = app.test_client()
    sign_in(browser)

    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("SELECT 1", {}, OSError())

    with app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        page = browser.get("/")
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)

    assert page.status_code == 503
    assert "La base de datos no responde" in page.text


def test_times_use_time_zone_of_profile(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> None:
    user = make_user("susan")
    db.session.add(Post(user_id=user.id, body="Hello", timestamp=datetime(2026, 1, 31, 20, 30, tzinfo=UTC)))
    db.session.commit()
    browser = signed_in(user)
    assert "data-zone" not in browser.get("/").text
    assert "31 янв. 2026\u202fг., 20:30:00 UTC" in browser.get("/", headers=accept_language("ru")).text

    choose(browser, timezone="Asia/Seoul", locale="ru")

    page = browser.get("/").text
    assert 'data-zone="Asia/Seoul"' in page
    assert "1 февр. 2026\u202fг., 05:30:00</time>" in page


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati", None])
def test_extreme_datetimes_format_in_every_time_zone(app: Flask, zone: str | None) -> None:
    with app.test_request_context():
        g.timezone = zone

        for time in (datetime.min, datetime.max):
            for format_time in (format_moment, format_day):
                assert format_time(time.replace(tzinfo=UTC))


def test_time_zone_names_are_translated(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> None:
    page = signed_in(make_user()).get("/edit_profile", headers=accept_language("ru")).text

    assert '<option value="Europe/Madrid">Испания: Мадрид</option>' in page
    assert '<option value="UTC">UTC</option>' in page


def test_job_and_mail_use_language_of_user(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], worker: Worker, smtp_server: SmtpServer
) -> None:
    default_user, spanish_user = make_user("susan"), make_user("david")
    spanish_user.locale = "es"
    db.session.commit()
    for user in (default_user, spanish_user):
        signed_in(user).post("/export_posts", headers=accept_language("ko"))
    wait_for(lambda: len(smtp_server.messages) == 2, what="both mails arrive")

    mails = {message["To"]: message for message in smtp_server.messages}
    assert mails[default_user.email]["Subject"] == "[Microblog] 내 게시물"
    assert mails[spanish_user.email]["Subject"] == "[Microblog] Tus publicaciones"
    assert "Hola, david:" in not_none(mails[spanish_user.email].get_body(("plain",))).get_content()
    assert '<html lang="ko">' in not_none(mails[default_user.email].get_body(("html",))).get_content()
    db.session.rollback()
    texts = {
        user.username: db.session.execute(
            sa.select(Task.description, Task.message).where(Task.user_id == user.id).order_by(Task.position)
        ).all()
        for user in (default_user, spanish_user)
    }
    assert texts["susan"][0] == ("게시물을 내보내는 중", "게시물 0개 중 0개")
    assert texts["susan"][1].description == "아카이브를 메일로 보내는 중"
    assert texts["david"][0] == ("Exportando tus publicaciones", "0 de 0 publicaciones")


def test_mail_uses_current_locale_of_recipient(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    user.locale = "ru"
    archive = Archive(
        id="a", user_id=user.id, path="", posts=12345, size=1 << 40, sha256="", expires_at=datetime.now(UTC)
    )

    message = archive_email(user, archive)

    assert message.subject == "[Microblog] Ваши записи"
    assert "Записей в нём: 12\u00a0345." in not_none(message.body)
    assert "7 дней" in not_none(message.body)


def test_reconcile_and_retry_use_language_of_user(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    with app.test_request_context(headers=accept_language("ru")):
        task_id = user.launch_task("export_posts", "Экспорт").id
        db.session.commit()
    for _ in range(3):
        crash(app, task_id)

    reconcile_all()
    job = find_job(task_id)
    assert job is not None
    again = retry_job(job)  # outside a request, as by an operator whose language is English
    db.session.commit()

    assert {row.error for row in rows_of(task_id)} == {
        "Процесс, который этим занимался, раз за разом падал, и попытки прекращены."
    }
    assert [row.description for row in rows_of(again.id)] == ["Экспорт", "Отправка архива по почте"]
    assert [row.signature["options"]["headers"]["locale"] for row in rows_of(again.id)] == ["ru", "ru"]


def test_unknown_task_error_uses_language_of_user(
    app: Flask, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_user()
    with app.test_request_context(headers=accept_language("es")):
        task_id = user.launch_task("noop", "").id
        db.session.commit()
    db.session.execute(sa.update(Task).values(name="from_an_old_release"))
    make_older(task_id, created_at=3601)
    monkeypatch.setattr("microblog.taskqueue.reconcile.STARTED_AT", elapsed() - 3601)

    reconcile_all()

    assert [row.error for row in rows_of(task_id)] == ["Este tipo de trabajo ya no existe."]


def test_api_uses_language_of_token_owner(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    user.locale = "ko"
    db.session.commit()
    client = app.test_client()
    token = client.post("/api/tokens", auth=(user.username, PASSWORD)).get_json()["token"]
    headers = {"Authorization": f"Bearer {token}", **accept_language("es")}

    started = client.post("/api/exports", headers=headers)

    assert started.get_json()["description"] == "게시물을 내보내는 중"
    assert client.get("/api/tasks/none", headers=headers).get_json(force=True)["detail"] == "그런 작업이 없습니다."

"""The interface, the mails and the jobs in their reader's language, their times in the reader's zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, g
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.exports.emails import archive_email
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.i18n import format_day, format_moment
from microblog.jobs.models import find_job
from microblog.jobs.services import retry_job
from microblog.monitoring import status
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import crash, make_older, rows_of
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # hardly anything depends on which it is

SIGN_IN = {"en": "Sign in", "es": "Iniciar sesión", "ko": "로그인", "ru": "Войти"}
NOTHING = {
    "en": "There is nothing at this address.",
    "es": "No hay nada en esta dirección.",
    "ko": "이 주소에는 아무것도 없습니다.",
    "ru": "По этому адресу ничего нет.",
}
PASSWORD = "cat-dog-fish"


def asks_for(language: str) -> dict[str, str]:
    return {"Accept-Language": language}


def choose(browser: FlaskClient, **choice: str) -> Any:
    user = {"username": "susan", "about_me": ""}
    return browser.post("/edit_profile", data=user | choice, follow_redirects=True)


@pytest.mark.parametrize("language", SIGN_IN)
def test_pages_are_in_the_language_that_the_browser_asks_for(client: FlaskClient, language: str) -> None:
    for asked in (language, f"{language}-419, tlh;q=0.8", f"tlh, {language};q=0.5"):
        page = client.get("/auth/login", headers=asks_for(asked))
        error = client.get("/nothing", headers=asks_for(asked))

        assert f'<html lang="{language}"' in page.text
        assert f"<h1>{SIGN_IN[language]}</h1>" in page.text
        assert f'<html lang="{language}"' in error.text
        assert NOTHING[language] in error.text


@pytest.mark.parametrize("language", SIGN_IN)
def test_every_page_can_be_made_in_every_language(
    app: Flask,
    signed_in: Callable[..., FlaskClient],
    make_user: Callable[..., User],
    monkeypatch: pytest.MonkeyPatch,
    language: str,
) -> None:
    monkeypatch.setattr(status, "TIMEOUT", 0.05)  # there is no worker to wait for
    user = make_user("susan")
    user.is_operator = True
    db.session.add(Post(user_id=user.id, body="Hello"))
    user.launch_task("export_posts", "Exporting")
    db.session.commit()
    browser = signed_in(user)
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in rule.methods and not rule.arguments]
    paths = {rule.rule for rule in rules} - {"/notifications/stream", "/admin/stream", "/readyz"}

    pages = {path: browser.get(path, headers=asks_for(language)) for path in (*paths, "/user/susan")}

    assert {path: page.status_code for path, page in pages.items() if page.status_code >= 500} == {}
    html = {path: page for path, page in pages.items() if page.mimetype == "text/html" and page.status_code == 200}
    assert {"/", "/tasks", "/edit_profile", "/admin/tasks", "/admin/status", "/user/susan"} <= html.keys()
    assert [path for path, page in html.items() if f'<html lang="{language}"' not in page.text] == []


def test_the_profile_says_it_louder_than_the_browser_and_in_every_browser(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    user = make_user("susan")
    browser = signed_in(user)

    saved = choose(browser, locale="ko")
    elsewhere = signed_in(user)

    assert "프로필을 저장했습니다." in saved.text
    for one in (browser, elsewhere):
        assert '<html lang="ko"' in one.get("/", headers=asks_for("ru")).text
        assert NOTHING["ko"] in one.get("/nothing", headers=asks_for("ru")).text

    choose(browser, locale="")

    assert '<html lang="ru"' in browser.get("/", headers=asks_for("ru")).text


def test_a_language_or_a_zone_that_there_is_not_is_refused(
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


def test_whoever_is_not_signed_in_has_a_switch(client: FlaskClient) -> None:
    page = client.get("/auth/login")
    assert all(name in page.text for name in ("English", "Español", "한국어", "Русский"))

    answer = client.post("/language", data={"language": "ru"}, headers={"Referer": "http://localhost/auth/register"})

    assert answer.location == "/auth/register"
    assert '<html lang="ru"' in client.get("/auth/login", headers=asks_for("es")).text
    refused = client.post("/language", data={"language": "tlh"})
    assert refused.status_code == 400
    assert "Такого языка здесь нет." in refused.text


def test_a_page_that_says_that_the_database_is_away_says_it_in_the_readers_language(
    make_app: Callable[..., Flask], make_user: Callable[..., User]
) -> None:
    app = make_app(TESTING=False)
    make_user("susan").locale = "es"
    db.session.commit()
    browser = app.test_client()
    browser.post("/auth/login", data={"username": "susan", "password": PASSWORD})

    def away(*_: Any) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, OSError())

    with app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", away)
    try:
        page = browser.get("/")
    finally:
        sa.event.remove(engine, "before_cursor_execute", away)

    assert page.status_code == 503
    assert "La base de datos no responde" in page.text


def test_times_are_in_the_zone_that_the_reader_chose(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    user = make_user("susan")
    db.session.add(Post(user_id=user.id, body="Hello", timestamp=datetime(2026, 1, 31, 20, 30, tzinfo=UTC)))
    db.session.commit()
    browser = signed_in(user)
    assert "data-zone" not in browser.get("/").text
    assert "31 янв. 2026\u202fг., 20:30:00 UTC" in browser.get("/", headers=asks_for("ru")).text

    choose(browser, timezone="Asia/Seoul", locale="ru")

    page = browser.get("/").text
    assert 'data-zone="Asia/Seoul"' in page
    assert "1 февр. 2026\u202fг., 05:30:00</time>" in page


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati", None])
def test_the_first_and_the_last_time_there_is_can_be_shown_in_every_zone(app: Flask, zone: str | None) -> None:
    with app.test_request_context():
        g.timezone = zone

        for time in (datetime.min, datetime.max):
            for shown in (format_moment, format_day):
                assert shown(time.replace(tzinfo=UTC))


def test_the_zones_have_names_in_the_readers_language(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    page = signed_in(make_user()).get("/edit_profile", headers=asks_for("ru")).text

    assert '<option value="Europe/Madrid">Испания: Мадрид</option>' in page
    assert '<option value="UTC">UTC</option>' in page


def test_a_job_and_its_mail_are_in_the_language_of_its_user(
    make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], worker: Worker, smtp_server: SmtpServer
) -> None:
    asked, chosen = make_user("susan"), make_user("david")
    chosen.locale = "es"
    db.session.commit()
    for user in (asked, chosen):
        signed_in(user).post("/export_posts", headers=asks_for("ko"))
    wait_for(lambda: len(smtp_server.messages) == 2, what="both mails arrive")

    mails = {message["To"]: message for message in smtp_server.messages}
    assert mails[asked.email]["Subject"] == "[Microblog] 내 게시물"
    assert mails[chosen.email]["Subject"] == "[Microblog] Tus publicaciones"
    assert "Hola, david:" in mails[chosen.email].get_body(("plain",)).get_content()
    assert '<html lang="ko">' in mails[asked.email].get_body(("html",)).get_content()
    db.session.rollback()
    told = {
        user.username: db.session.execute(
            sa.select(Task.description, Task.message).where(Task.user_id == user.id).order_by(Task.position)
        ).all()
        for user in (asked, chosen)
    }
    assert told["susan"][0] == ("게시물을 내보내는 중", "게시물 0개 중 0개")
    assert told["susan"][1].description == "아카이브를 메일로 보내는 중"
    assert told["david"][0] == ("Exportando tus publicaciones", "0 de 0 publicaciones")


def test_a_mail_is_in_the_language_that_its_reader_has_chosen_since(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    user.locale = "ru"
    archive = Archive(
        id="a", user_id=user.id, path="", posts=12345, size=1 << 40, sha256="", expires_at=datetime.now(UTC)
    )

    message = archive_email(user, archive)

    assert message.subject == "[Microblog] Ваши записи"
    assert "Записей в нём: 12\u00a0345." in message.body
    assert "7 дней" in message.body


def test_whoever_ends_or_repeats_a_job_does_it_in_the_language_of_its_user(
    app: Flask, make_user: Callable[..., User]
) -> None:
    user = make_user()
    with app.test_request_context(headers=asks_for("ru")):
        task_id = user.launch_task("export_posts", "Экспорт").id
        db.session.commit()
    for _ in range(3):
        crash(app, task_id)

    reconcile_all()
    job = find_job(task_id)
    assert job is not None
    again = retry_job(job)  # as an operator would, whose language is English
    db.session.commit()

    assert {row.error for row in rows_of(task_id)} == {
        "Процесс, который этим занимался, раз за разом падал, и попытки прекращены."
    }
    assert [row.description for row in rows_of(again.id)] == ["Экспорт", "Отправка архива по почте"]
    assert [row.signature["options"]["headers"]["locale"] for row in rows_of(again.id)] == ["ru", "ru"]


def test_a_job_of_a_kind_that_is_gone_ends_in_the_language_of_its_user(
    app: Flask, make_user: Callable[..., User]
) -> None:
    user = make_user()
    with app.test_request_context(headers=asks_for("es")):
        task_id = user.launch_task("noop", "").id
        db.session.commit()
    db.session.execute(sa.update(Task).values(name="from_an_old_release"))
    make_older(task_id, created_at=3601)

    reconcile_all()

    assert [row.error for row in rows_of(task_id)] == ["Este tipo de trabajo ya no existe."]


def test_the_api_speaks_the_language_of_whose_token_it_is(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    user.locale = "ko"
    db.session.commit()
    client = app.test_client()
    token = client.post("/api/tokens", auth=(user.username, PASSWORD)).get_json()["token"]
    headers = {"Authorization": f"Bearer {token}", **asks_for("es")}

    started = client.post("/api/exports", headers=headers)

    assert started.get_json()["description"] == "게시물을 내보내는 중"
    assert client.get("/api/tasks/none", headers=headers).get_json(force=True)["detail"] == "그런 작업이 없습니다."

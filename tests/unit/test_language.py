"""Language detection: a post has a language only if its few words are enough to determine it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from microblog.posts.language_detection import detect_language
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT

CLEAR = {
    "en": ["The heron was back at the pond this morning.", "Thanks for the tip, it works now!"],
    "es": ["El café de la mañana sabe mejor en el balcón.", "otra vez lunes y yo sin dormir", "Buenos días a todos"],
    "ko": ["오늘 아침 커피가 유난히 맛있다.", "감사합니다!", "오늘 Python 3.12로 업데이트했다"],
    "ru": ["Кто знает хорошую пекарню у старого вокзала?", "Спасибо за совет, теперь всё работает!"],
    "fr": ["Merci pour le conseil, ça marche maintenant !", "Encore un lundi sans avoir dormi"],
    "de": ["Die Katze des Nachbarn ist bei uns eingezogen.", "Danke für den Tipp, jetzt geht es!"],
    "ja": ["今朝のコーヒーは特においしかった。", "猫がまたキーボードの上で寝ている"],
    "zh": ["今天早上的咖啡特别好喝。"],
    "pt": ["O gato do vizinho mudou-se para a nossa casa.", "Obrigado pela dica, agora funciona!"],
    "it": ["Mia nonna aveva ragione sulle cipolle.", "Grazie del consiglio, adesso funziona!"],
    "nl": ["Weet iemand een goede bakker bij het oude station?"],
    "pl": ["Czy ktoś zna dobrą piekarnię koło dworca?"],
}
SHORT = ["", "ok", "no", "Hello", "Buenas noches", "спасибо", "今日は", "¡GOOOOL!", "W" * 140, "haha", "👍👍👍"]
NAMES = ["https://example.com/where/the/wild/things/are", "@susan @miguel @aiko @tomasz", "#flask #python #sqlalchemy"]
MIXED = ["Just had the best tacos, ¡qué rico!", 'Reading "Война и мир" at last', "I love 김치", "Hello, дорогой друг"]


@pytest.mark.parametrize("tag", CLEAR)
def test_detect_language_of_sentences(tag: str) -> None:
    assert [detect_language(text) for text in CLEAR[tag]] == [tag] * len(CLEAR[tag])


@pytest.mark.parametrize("text", [*SHORT, *NAMES, *MIXED])
def test_detect_language_none_for_short_or_mixed_text(text: str) -> None:
    assert detect_language(text) is None


def test_detect_language_ignores_mentions_and_urls() -> None:
    assert (
        detect_language("@the_morning_post danke dir, bis morgen! https://example.com/where/the/wild/things/are")
        == "de"
    )


@pytest.mark.exhaustive
def test_posts_models_import_does_not_load_detector() -> None:
    program = "import sys, microblog.posts.models; sys.exit('fasttext' in sys.modules or 'requests' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=TIMEOUT).returncode == 0


@pytest.mark.exhaustive
def test_create_app_does_not_load_http_client() -> None:
    program = (
        "import sys; from microblog import create_app; create_app(MICROBLOG_ENV='testing');"
        "sys.exit('urllib3' in sys.modules)"
    )
    environment = os.environ | {"MICROBLOG_ENV": "testing"}

    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=TIMEOUT, env=environment)

    assert run.returncode == 0

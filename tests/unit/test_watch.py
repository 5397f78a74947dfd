"""What `flask tasks watch` draws, and what keys change, without a terminal, Redis or a database."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from microblog.monitoring.queues import QueueStats
from microblog.monitoring.watch import keyboard
from microblog.monitoring.watch.choices import CANCEL, DETAIL, HELP, LIST, QUIT, RETRY, Choices, Command
from microblog.monitoring.watch.keyboard import decode
from microblog.monitoring.watch.screen import draw, page
from microblog.monitoring.watch.snapshot import Change, Counts, JobLine, Part, Snapshot, WorkerLine
from microblog.taskqueue import states

NOW = datetime(2026, 5, 17, 12, 4, 31, tzinfo=UTC)
UP, AWAY = {"known": True}, {"known": True, "error": "refused", "since": NOW - timedelta(seconds=12)}
SIZES = [(60, 14), (80, 24), (100, 30), (140, 40), (300, 80)]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


EXPORT = JobLine(
    "0b8e2f4c-6a1d", "export_posts", "susan", "Exporting your posts", states.PROGRESS, steps=2,
    step_name="export_posts", percent=43, current=430, total=1000, message="430 of 1,000 posts", queue="exports",
    worker="worker1@host", attempts=1, created_at=ago(50), started_at=ago(43), changed_at=ago(1),
)  # fmt: skip
WAITING = JobLine("11112222-3333", "count", "david", queue="default", created_at=ago(200), changed_at=ago(200))
FAILED = replace(
    EXPORT, id="99998888", user="anna", state=states.FAILURE, error="The moon is wrong.", created_at=ago(9)
)


def snapshot(*jobs: JobLine, **facts: Any) -> Snapshot:
    known: dict[str, Any] = {
        "redis": Part("Redis", **UP),
        "database": Part("Database", **UP),
        "workers": [WorkerLine("worker1@host", True, NOW, active=1, processed=1204, load=0.7, concurrency=2)],
        "queues": [QueueStats("exports", 12, ago(3), 1, False), QueueStats("mail", 0, None, 1, False)],
        "jobs": list(jobs),
        "counts": Counts(1, 12, "david", ago(200)),
        "listening_for": timedelta(minutes=1),
    }
    return Snapshot(NOW, **known | facts)


def screen(
    seen: Snapshot, choices: Choices | None = None, size: tuple[int, int] = (80, 24), notice: str = ""
) -> list[str]:
    """The lines that are drawn, without colours."""
    choices = choices or Choices()
    choices.page = page(seen, size[1], choices.mode)
    console = Console(width=size[0], height=size[1], file=io.StringIO(), force_terminal=True, record=True, _environ={})
    console.print(draw(seen, choices.arrange(seen.jobs or ()), choices, size, notice), height=size[1], end="")
    return console.export_text().splitlines()


def line_with(text: str, lines: Sequence[str]) -> str:
    found = [line for line in lines if text in line]
    assert found, f"{text!r} is not on the screen:\n" + "\n".join(lines)
    return found[0]


class TestTheList:
    def test_a_running_job_has_a_bar_its_share_and_the_time_left(self):
        line = line_with("susan", screen(snapshot(EXPORT)))

        assert "PROGRESS" in line
        assert "export_posts" in line
        assert "━" in line
        assert "43%" in line
        assert "57s" in line, "what is left at the pace so far"
        assert "50s" in line, "its age"

    def test_the_bar_is_as_long_as_the_job_is_far(self):
        def bar(percent: int) -> int:
            [line] = [line for line in coloured(replace(EXPORT, percent=percent)) if "susan" in line]
            return sum(len(run) for codes, run in re.findall("\x1b\\[([0-9;]*)m(━+)", line) if "36" in codes.split(";"))

        assert bar(10) < bar(50) < bar(90)

    def test_what_does_not_run_tells_why(self):
        retry = replace(EXPORT, id="r", user="rita", state=states.RETRY, eta=NOW + timedelta(seconds=8), error="No.")
        seen = screen(snapshot(WAITING, FAILED, retry))

        assert "david" in line_with("waiting in default", seen)
        assert "The moon is wron" in line_with("anna", seen)
        assert "again in 8s" in line_with("rita", seen)

    def test_workers_and_queues_are_above(self):
        lines = screen(snapshot(EXPORT), size=(100, 30))

        assert "Workers: 1 up" in lines[1]
        assert "1/2" in line_with("1,204 done", lines)
        assert "12 waiting" in line_with("exports ", lines)

    def test_a_silent_worker_and_a_queue_that_nobody_takes_from_are_named(self):
        silent = WorkerLine("worker2@host", False, ago(14))
        lonely = [QueueStats("mail", 3, ago(60), 0, False), QueueStats("exports", 1, None, 1, True)]
        lines = screen(snapshot(workers=[silent], queues=lonely))

        assert "0 up, 1 silent" in lines[1]
        assert "silent for 14s" in line_with("worker2@host", lines)
        assert "no worker" in line_with("mail", lines)
        assert "paused" in line_with("exports", lines)

    def test_no_worker_at_all_is_a_sentence(self):
        assert line_with("No worker is up", screen(snapshot(workers=[])))

    def test_more_workers_than_there_is_room_for_are_counted_and_the_silent_ones_are_shown(self):
        crowd = [WorkerLine("z@host", False, ago(9)), *[WorkerLine(f"w{n}@host", True, NOW) for n in range(30)]]
        lines = screen(snapshot(workers=crowd))

        assert line_with("z@host", lines)
        assert line_with("and 26 more", lines)

    def test_redis_away_is_in_the_first_line_and_nobody_is_called_silent_for_it(self):
        silent = WorkerLine("worker2@host", False, ago(14))
        lines = screen(snapshot(EXPORT, redis=Part("Redis", **AWAY), workers=[silent], queues=None))

        assert "Redis is away (12s), reconnecting" in lines[0]
        assert "Database up" in lines[0]
        assert "silent" not in "".join(lines)
        assert line_with("Not known without Redis", lines)
        assert "43%" in line_with("susan", lines), "what the database tells goes on"

    def test_database_away_is_in_the_first_line_and_what_is_known_stays(self):
        lines = screen(snapshot(EXPORT, database=Part("Database", **AWAY)))

        assert "Database is away (12s), reconnecting" in lines[0]
        assert "as last read" in line_with("Jobs", lines)
        assert line_with("susan", lines)

    def test_both_away_fit_into_the_first_line(self):
        lines = screen(snapshot(redis=Part("Redis", **AWAY), database=Part("Database", **AWAY), queues=None))

        assert "Redis is away" in lines[0]
        assert "Database is away" in lines[0]

    def test_what_users_wrote_cannot_steer_the_terminal(self):
        evil = replace(FAILED, user="\x1b[2J", error="\x1b]0;title\x07 [bold]markup[/bold]", name="a\nb")

        drawn = "\n".join(coloured(evil))

        assert "\x1b[2J" not in drawn
        assert "\x1b]0" not in drawn
        assert "[bold]" in drawn, "no markup of theirs is obeyed"

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("mode", [LIST, DETAIL, HELP])
    def test_every_size_is_filled_to_the_last_line_and_no_further(self, size, mode):
        choices = Choices(mode=mode, cursor=EXPORT.id)
        many = [replace(WAITING, id=f"w{number}", user=f"user{number}" * 9) for number in range(200)]

        lines = screen(snapshot(EXPORT, *many), choices, size)

        assert len(lines) == size[1]
        assert all(len(line) <= size[0] for line in lines)
        assert "quit" in lines[-1]
        assert lines[-3].startswith("╰")

    def test_a_terminal_that_is_too_small_is_told_so(self):
        assert "This terminal has 40×10" in " ".join(screen(snapshot(EXPORT), size=(40, 10)))

    def test_nothing_known_yet_says_so(self):
        part = Part("Redis"), Part("Database")
        lines = screen(Snapshot(NOW, *part))

        assert "Redis …" in lines[0]
        assert line_with("Reading …", lines)


def coloured(*jobs: JobLine) -> list[str]:
    seen, choices, file = snapshot(*jobs), Choices(cursor=None, page=15), io.StringIO()
    console = Console(width=120, height=24, file=file, force_terminal=True, color_system="standard", _environ={})
    console.print(draw(seen, choices.arrange(seen.jobs or ()), choices, (120, 24)), height=24)
    return file.getvalue().splitlines()


class TestAnOpenJob:
    def detail(self, **facts: Any) -> dict[str, Any]:
        step = {
            "id": EXPORT.id, "position": 0, "name": "export_posts", "state": states.PROGRESS, "error": None,
            "progress": {"current": 10, "total": 1000, "percent": 1, "message": "10 of 1,000 posts"},
            "queue": "exports", "worker": "worker1@host", "attempts": 2, "crashes": 1, "traceback": None, "eta": None,
            "created_at": "2026-05-17T12:03:41Z", "published_at": ago(49), "started_at": "2026-05-17T12:03:48Z",
            "cancel_requested_at": None, "finished_at": None,
        }  # fmt: skip
        mail = step | {"id": "mail", "position": 1, "name": "email_export", "state": states.PENDING, "started_at": None}
        return {"id": EXPORT.id, "steps": [step | facts, mail]}

    def lines(self, size: tuple[int, int] = (80, 50), scroll: int = 0, **facts: Any) -> list[str]:
        choices = Choices(mode=DETAIL, cursor=EXPORT.id, scroll=scroll)
        return screen(snapshot(EXPORT, detail=self.detail(**facts)), choices, size)

    def test_it_has_its_steps_its_progress_and_its_time_line(self):
        lines = self.lines()

        assert line_with("Step 1 of 2: export_posts  PROGRESS", lines)
        assert line_with("Step 2 of 2: email_export  PENDING", lines)
        assert line_with("43%", lines), "the latest, which the database does not have yet"
        assert line_with("430 of 1,000 posts", lines)
        assert line_with("2; workers that died: 1", lines)
        assert "+ 7 s" in line_with("step 1 first started", lines)

    def test_it_has_error_and_traceback_to_scroll_through(self):
        failure = {"error": "It broke.", "traceback": "\n".join(f"line {number}" for number in range(100))}

        assert line_with("It broke.", self.lines(**failure))
        assert not any("line 99" in line for line in self.lines((80, 24), **failure))
        assert line_with("step 1 first started", self.lines((80, 24), scroll=10_000, **failure))

    def test_a_task_without_a_row_says_so(self):
        bare = replace(EXPORT, has_row=False)
        assert line_with("no row", screen(snapshot(bare), Choices(mode=DETAIL, cursor=bare.id)))


class TestChoices:
    def arranged(self, choices: Choices, *jobs: JobLine) -> list[str]:
        return [job.user for job in choices.arrange(jobs)]

    def press(self, choices: Choices, *keys: str, jobs: Sequence[JobLine] = (EXPORT, WAITING)) -> Command | None:
        command = None
        for key in keys:
            command = choices.press(key, choices.arrange(jobs))
        choices.arrange(jobs)
        return command

    def test_what_runs_comes_first_and_what_ended_last(self):
        assert self.arranged(Choices(), FAILED, WAITING, EXPORT) == ["susan", "david", "anna"]

    def test_s_sorts_by_the_next_column_and_shift_s_backwards(self):
        choices = Choices()
        self.press(choices, "s")
        assert (choices.sort, self.arranged(choices, EXPORT, WAITING)) == ("age", ["david", "susan"])
        self.press(choices, "S")
        assert self.arranged(choices, EXPORT, WAITING) == ["susan", "david"]

    def test_a_filter_keeps_jobs_that_have_each_word_somewhere(self):
        choices = Choices()
        self.press(choices, "/", *"SUS exp")
        assert self.arranged(choices, EXPORT, WAITING) == ["susan"]
        self.press(choices, keyboard.BACKSPACE, *"zz")
        assert self.arranged(choices, EXPORT, WAITING) == []
        self.press(choices, keyboard.ESCAPE)
        assert self.arranged(choices, EXPORT, WAITING) == ["susan", "david"]

    def test_keys_are_letters_while_a_filter_is_typed(self):
        choices = Choices()
        assert self.press(choices, "/", "q", "c") is None
        assert choices.text == "qc"

    def test_the_cursor_stays_with_its_job(self):
        choices = Choices()
        self.press(choices, keyboard.DOWN)
        assert choices.cursor == WAITING.id
        self.press(choices, "s")
        assert choices.cursor == WAITING.id
        choices.arrange([EXPORT])
        assert choices.cursor == EXPORT.id, "its own has gone"

    def test_the_list_scrolls_with_the_cursor(self):
        jobs = [replace(WAITING, id=str(number), created_at=ago(1000 - number)) for number in range(50)]
        choices = Choices(page=10)
        self.press(choices, keyboard.END, jobs=jobs)
        assert (choices.cursor, choices.top) == ("49", 40)
        self.press(choices, keyboard.PAGE_UP, keyboard.UP, jobs=jobs)
        assert (choices.cursor, choices.top) == ("38", 38)
        self.press(choices, keyboard.HOME, jobs=jobs)
        assert (choices.cursor, choices.top) == ("0", 0)

    @pytest.mark.parametrize(("key", "what"), [("c", CANCEL), ("r", RETRY)])
    def test_cancel_and_retry_ask_first(self, key, what):
        choices = Choices()
        assert self.press(choices, key) is None
        assert "export_posts of susan (0b8e2f4c)? y/n" in screen(snapshot(EXPORT, WAITING), choices)[-2]
        assert self.press(choices, "n", "y") is None, "no is no"
        assert self.press(choices, key, "y") == Command(what, EXPORT)
        assert choices.question is None

    def test_the_answer_is_about_the_job_that_was_asked_about(self):
        choices = Choices()
        self.press(choices, "c", jobs=[EXPORT])
        assert self.press(choices, "y", jobs=[WAITING]) == Command(CANCEL, EXPORT)

    def test_enter_opens_and_escape_closes(self):
        choices = Choices()
        self.press(choices, keyboard.ENTER)
        assert (choices.mode, choices.wanted().opened) == (DETAIL, EXPORT.id)
        self.press(choices, keyboard.ESCAPE)
        assert (choices.mode, choices.wanted().opened) == (LIST, None)

    def test_q_quits_from_everywhere(self):
        for mode in (LIST, DETAIL, HELP):
            assert self.press(Choices(mode=mode, cursor=EXPORT.id), "q") == Command(QUIT)

    def test_keys_do_no_harm_where_there_is_no_job(self):
        choices = Choices()
        for key in ("c", "r", keyboard.ENTER, keyboard.DOWN, keyboard.END, "s", "S"):
            assert self.press(choices, key, jobs=[]) is None
        assert (choices.mode, choices.cursor) == (LIST, None)


class TestChanges:
    def at(self, **facts: Any) -> Change:
        return Change(**{"position": 0, "state": states.PROGRESS, "at": NOW} | facts)

    def test_progress_that_was_announced_moves_the_bar(self):
        counted = {"current": 500, "total": 1000, "percent": 50, "message": "half"}
        assert EXPORT.with_change(self.at(progress=counted)).percent == 50

    def test_old_news_does_not_turn_it_back(self):
        counted = {"current": 1, "total": 1000, "percent": 0, "message": ""}
        second = replace(EXPORT, step=2)
        assert EXPORT.with_change(self.at(progress=counted, at=ago(5))) == EXPORT
        assert second.with_change(self.at(state=states.SUCCESS)) == second
        assert FAILED.with_change(self.at()) == FAILED, "what ended has ended"

    def test_a_step_that_succeeded_makes_way_for_the_next_and_the_last_ends_the_job(self):
        second = EXPORT.with_change(self.at(state=states.SUCCESS))
        assert (second.state, second.step, second.percent) == (states.PROGRESS, 2, 0)
        done = second.with_change(self.at(position=1, state=states.SUCCESS, at=NOW + timedelta(seconds=1)))
        assert (done.state, done.percent, done.unfinished) == (states.SUCCESS, 100, False)

    def test_a_step_that_failed_ends_the_job(self):
        assert EXPORT.with_change(self.at(state=states.FAILURE)).state == states.FAILURE


class TestKeyboard:
    def test_bytes_become_keys(self):
        assert decode("a\x1b[A\x1bOB\r\x7fé\x1b[5~\t") == (
            ["a", keyboard.UP, keyboard.DOWN, keyboard.ENTER, keyboard.BACKSPACE, "é", keyboard.PAGE_UP, keyboard.TAB],
            "",
        )

    def test_a_key_that_is_not_whole_yet_waits_for_its_end(self):
        assert decode("\x1b") == ([], "\x1b")
        assert decode("x\x1b[1") == (["x"], "\x1b[1")
        assert decode("\x1b[1~") == ([keyboard.HOME], "")

    def test_escape_before_another_key_is_itself(self):
        assert decode("\x1bq") == ([keyboard.ESCAPE, "q"], "")

    def test_keys_without_a_meaning_are_nothing(self):
        assert decode("\x1b[15~\x1b[1;5C\x00\x02") == ([], "")

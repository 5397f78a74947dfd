"""`flask tasks watch`: its screen and its keys, without a terminal, Redis or a database."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from microblog.monitoring.job_queries import JobEvent, WaitingJob
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.watch import terminal
from microblog.monitoring.watch.screen import draw, page_size
from microblog.monitoring.watch.snapshot import Change, Counts, JobLine, Service, Snapshot, WorkerLine
from microblog.monitoring.watch.terminal import decode
from microblog.monitoring.watch.ui_state import CANCEL, DETAIL, HELP, LIST, QUIT, RETRY, Command, UiState
from microblog.taskqueue import states

NOW = datetime(2026, 5, 17, 12, 4, 31, tzinfo=UTC)
SIZES = [(60, 14), (80, 24), (100, 30), (140, 40), (300, 80)]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def unavailable(name: str) -> Service:
    return Service(name, known=True, error="refused", since=ago(12))


EXPORT = JobLine(
    "0b8e2f4c-6a1d", "export_posts", "susan", "Exporting your posts", states.PROGRESS, steps=2,
    step_name="export_posts", percent=43, current=430, total=1000, message="430 of 1,000 posts", queue="exports",
    worker="worker1@host", created_at=ago(50), started_at=ago(43), changed_at=ago(1),
)  # fmt: skip
WAITING = JobLine("11112222-3333", "count", "david", queue="default", created_at=ago(200), changed_at=ago(200))
FAILED = replace(
    EXPORT, id="99998888", user="anna", state=states.FAILURE, error="The moon is wrong.", created_at=ago(9)
)


def snapshot(*jobs: JobLine, **fields: Any) -> Snapshot:
    defaults: dict[str, Any] = {
        "redis": Service("Redis", known=True),
        "database": Service("Database", known=True),
        "workers": [WorkerLine("worker1@host", True, NOW, active=1, processed=1204, load=0.7, concurrency=2)],
        "queues": [QueueStats("exports", 12, ago(3), 1, False), QueueStats("mail", 0, None, 1, False)],
        "jobs": list(jobs),
        "counts": Counts(1, 12, WaitingJob("david", ago(200), "job-1", "export_posts", "PENDING")),
        "listening_for": timedelta(minutes=1),
    }
    return Snapshot(NOW, **defaults | fields)


def screen(seen: Snapshot, ui: UiState | None = None, size: tuple[int, int] = (80, 24), notice: str = "") -> list[str]:
    """Return the drawn lines, without colours."""
    ui = ui or UiState()
    ui.page = page_size(seen, size[1], ui.mode)
    console = Console(width=size[0], height=size[1], file=io.StringIO(), force_terminal=True, record=True, _environ={})
    console.print(draw(seen, ui.arrange(seen.jobs or ()), ui, size, notice), height=size[1], end="")
    return console.export_text().splitlines()


def line_with(text: str, lines: Sequence[str]) -> str:
    found = [line for line in lines if text in line]
    assert found, f"{text!r} is not on the screen:\n" + "\n".join(lines)
    return found[0]


class TestJobList:
    def test_running_job_shows_bar_percent_and_time_left(self) -> None:
        line = line_with("susan", screen(snapshot(EXPORT)))

        assert "PROGRESS" in line
        assert "export_posts" in line
        assert "━" in line
        assert "43%" in line
        assert "57s" in line, "the remaining time at the current speed"
        assert "50s" in line, "age of the job"

    def test_bar_length_follows_percent(self) -> None:
        def bar(percent: int) -> int:
            [line] = [line for line in coloured(replace(EXPORT, percent=percent)) if "susan" in line]
            return sum(len(run) for codes, run in re.findall("\x1b\\[([0-9;]*)m(━+)", line) if "36" in codes.split(";"))

        assert bar(10) < bar(50) < bar(90)

    def test_jobs_that_do_not_run_show_reason(self) -> None:
        retry = replace(EXPORT, id="r", user="rita", state=states.RETRY, eta=NOW + timedelta(seconds=8), error="No.")
        lines = screen(snapshot(WAITING, FAILED, retry))

        assert "david" in line_with("waiting in default", lines)
        assert "The moon is wron" in line_with("anna", lines)
        assert "retry in 8s" in line_with("rita", lines)

    def test_workers_and_queues_are_above_jobs(self) -> None:
        lines = screen(snapshot(EXPORT), size=(100, 30))

        assert "Workers: 1 up" in lines[1]
        assert "1/2" in line_with("1,204 done", lines)
        assert "12 waiting" in line_with("exports ", lines)

    def test_silent_worker_and_unserved_queue_are_marked(self) -> None:
        silent = WorkerLine("worker2@host", False, ago(14))
        queues = [QueueStats("mail", 3, ago(60), 0, False), QueueStats("exports", 1, None, 1, True)]
        lines = screen(snapshot(workers=[silent], queues=queues))

        assert "0 up, 1 silent" in lines[1]
        assert "silent for 14s" in line_with("worker2@host", lines)
        assert "no worker" in line_with("mail", lines)
        assert "paused" in line_with("exports", lines)

    def test_no_worker_shows_message(self) -> None:
        assert line_with("No worker is up", screen(snapshot(workers=[])))

    def test_long_worker_list_is_cut_but_shows_silent(self) -> None:
        crowd = [WorkerLine("z@host", False, ago(9)), *[WorkerLine(f"w{n}@host", True, NOW) for n in range(30)]]
        lines = screen(snapshot(workers=crowd))

        assert line_with("z@host", lines)
        assert line_with("and 26 more", lines)

    def test_redis_outage_does_not_mark_workers_silent(self) -> None:
        silent = WorkerLine("worker2@host", False, ago(14))
        lines = screen(snapshot(EXPORT, redis=unavailable("Redis"), workers=[silent], queues=None))

        assert "Redis is down (12s), reconnecting" in lines[0]
        assert "Database up" in lines[0]
        assert "silent" not in "".join(lines)
        assert line_with("Unknown without Redis", lines)
        assert "43%" in line_with("susan", lines), "jobs from the database are still shown"

    def test_database_outage_keeps_last_read_jobs(self) -> None:
        lines = screen(snapshot(EXPORT, database=unavailable("Database")))

        assert "Database is down (12s), reconnecting" in lines[0]
        assert "as last read" in line_with("Jobs", lines)
        assert line_with("susan", lines)

    def test_both_outages_fit_into_first_line(self) -> None:
        lines = screen(snapshot(redis=unavailable("Redis"), database=unavailable("Database"), queues=None))

        assert "Redis is down" in lines[0]
        assert "Database is down" in lines[0]

    def test_user_text_is_escaped(self) -> None:
        hostile = replace(FAILED, user="\x1b[2J", error="\x1b]0;title\x07 [bold]markup[/bold]", name="a\nb")

        drawn = "\n".join(coloured(hostile))

        assert "\x1b[2J" not in drawn
        assert "\x1b]0" not in drawn
        assert "[bold]" in drawn, "markup in user text is not interpreted"

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("mode", [LIST, DETAIL, HELP])
    def test_screen_fills_terminal_of_every_size(self, size: tuple[int, int], mode: str) -> None:
        ui = UiState(mode=mode, cursor=EXPORT.id)
        many = [replace(WAITING, id=f"w{number}", user=f"user{number}" * 9) for number in range(200)]

        lines = screen(snapshot(EXPORT, *many), ui, size)

        assert len(lines) == size[1]
        assert all(len(line) <= size[0] for line in lines)
        assert "quit" in lines[-1]
        assert lines[-3].startswith("╰")

    def test_small_terminal_shows_message(self) -> None:
        assert "This terminal has 40×10" in " ".join(screen(snapshot(EXPORT), size=(40, 10)))

    def test_screen_before_first_read(self) -> None:
        part = Service("Redis"), Service("Database")
        lines = screen(Snapshot(NOW, *part))

        assert "Redis …" in lines[0]
        assert line_with("Reading …", lines)


def coloured(*jobs: JobLine) -> list[str]:
    seen, ui, file = snapshot(*jobs), UiState(cursor=None, page=15), io.StringIO()
    console = Console(width=120, height=24, file=file, force_terminal=True, color_system="standard", _environ={})
    console.print(draw(seen, ui.arrange(seen.jobs or ()), ui, (120, 24)), height=24)
    return file.getvalue().splitlines()


class TestJobDetail:
    def detail(self, **fields: Any) -> dict[str, Any]:
        step = {
            "id": EXPORT.id, "position": 0, "name": "export_posts", "state": states.PROGRESS, "error": None,
            "progress": {"current": 10, "total": 1000, "percent": 1, "message": "10 of 1,000 posts"},
            "queue": "exports", "worker": "worker1@host", "attempts": 2, "crashes": 1, "traceback": None, "eta": None,
        }  # fmt: skip
        mail = step | {"id": "mail", "position": 1, "name": "email_export", "state": states.PENDING}
        started = JobEvent(ago(43), timedelta(seconds=7), 0, "export_posts", "first started")
        return {"id": EXPORT.id, "steps": [step | fields, mail], "timeline": [started]}

    def lines(self, size: tuple[int, int] = (80, 50), scroll: int = 0, **fields: Any) -> list[str]:
        ui = UiState(mode=DETAIL, cursor=EXPORT.id, scroll=scroll)
        return screen(snapshot(EXPORT, detail=self.detail(**fields)), ui, size)

    def test_shows_steps_progress_and_timeline(self) -> None:
        lines = self.lines()

        assert line_with("Step 1 of 2: export_posts  PROGRESS", lines)
        assert line_with("Step 2 of 2: email_export  PENDING", lines)
        assert line_with("43%", lines), "the latest progress, not yet in the database"
        assert line_with("430 of 1,000 posts", lines)
        assert line_with("2; workers that died: 1", lines)
        assert "+7s" in line_with("step 1 first started", lines)

    def test_shows_error_and_scrollable_traceback(self) -> None:
        lines = partial(self.lines, error="It broke.", traceback="\n".join(f"line {number}" for number in range(100)))

        assert line_with("It broke.", lines())
        assert not any("line 99" in line for line in lines((80, 24)))
        assert line_with("step 1 first started", lines((80, 24), scroll=10_000))

    def test_task_without_row_shows_message(self) -> None:
        bare = replace(EXPORT, has_row=False)
        assert line_with("no row", screen(snapshot(bare), UiState(mode=DETAIL, cursor=bare.id)))


class TestChoices:
    def arranged(self, ui: UiState, *jobs: JobLine) -> list[str]:
        return [job.user for job in ui.arrange(jobs)]

    def press(self, ui: UiState, *keys: str, jobs: Sequence[JobLine] = (EXPORT, WAITING)) -> Command | None:
        command = None
        for key in keys:
            command = ui.press(key, ui.arrange(jobs))
        ui.arrange(jobs)
        return command

    def test_running_jobs_first_and_ended_jobs_last(self) -> None:
        assert self.arranged(UiState(), FAILED, WAITING, EXPORT) == ["susan", "david", "anna"]

    def test_s_sorts_and_shift_s_reverses(self) -> None:
        ui = UiState()
        self.press(ui, "s")
        assert (ui.sort, self.arranged(ui, EXPORT, WAITING)) == ("age", ["david", "susan"])
        self.press(ui, "S")
        assert self.arranged(ui, EXPORT, WAITING) == ["susan", "david"]

    def test_filter_requires_every_word(self) -> None:
        ui = UiState()
        self.press(ui, "/", *"SUS exp")
        assert self.arranged(ui, EXPORT, WAITING) == ["susan"]
        self.press(ui, terminal.BACKSPACE, *"zz")
        assert self.arranged(ui, EXPORT, WAITING) == []
        self.press(ui, terminal.ESCAPE)
        assert self.arranged(ui, EXPORT, WAITING) == ["susan", "david"]

    def test_keys_are_text_while_filter_is_edited(self) -> None:
        ui = UiState()
        assert self.press(ui, "/", "q", "c") is None
        assert ui.text == "qc"

    def test_cursor_follows_its_job(self) -> None:
        ui = UiState()
        self.press(ui, terminal.DOWN)
        assert ui.cursor == WAITING.id
        self.press(ui, "s")
        assert ui.cursor == WAITING.id
        ui.arrange([EXPORT])
        assert ui.cursor == EXPORT.id, "its own job is no longer listed"

    def test_list_scrolls_with_cursor(self) -> None:
        jobs = [replace(WAITING, id=str(number), created_at=ago(1000 - number)) for number in range(50)]
        ui = UiState(page=10)
        self.press(ui, terminal.END, jobs=jobs)
        assert (ui.cursor, ui.top) == ("49", 40)
        self.press(ui, terminal.PAGE_UP, terminal.UP, jobs=jobs)
        assert (ui.cursor, ui.top) == ("38", 38)
        self.press(ui, terminal.HOME, jobs=jobs)
        assert (ui.cursor, ui.top) == ("0", 0)

    @pytest.mark.parametrize(("key", "action"), [("c", CANCEL), ("r", RETRY)])
    def test_cancel_and_retry_require_confirmation(self, key: str, action: str) -> None:
        ui = UiState()
        assert self.press(ui, key) is None
        assert "export_posts of susan (0b8e2f4c)? y/n" in screen(snapshot(EXPORT, WAITING), ui)[-2]
        assert self.press(ui, "n", "y") is None, "n cancels the question"
        assert self.press(ui, key, "y") == Command(action, EXPORT)
        assert ui.question is None

    def test_confirmation_applies_to_original_job(self) -> None:
        ui = UiState()
        self.press(ui, "c", jobs=[EXPORT])
        assert self.press(ui, "y", jobs=[WAITING]) == Command(CANCEL, EXPORT)

    def test_enter_opens_and_escape_closes(self) -> None:
        ui = UiState()
        self.press(ui, terminal.ENTER)
        assert (ui.mode, ui.query().opened) == (DETAIL, EXPORT.id)
        self.press(ui, terminal.ESCAPE)
        assert (ui.mode, ui.query().opened) == (LIST, None)

    def test_q_quits_in_every_mode(self) -> None:
        for mode in (LIST, DETAIL, HELP):
            assert self.press(UiState(mode=mode, cursor=EXPORT.id), "q") == Command(QUIT)

    def test_keys_do_nothing_without_job(self) -> None:
        ui = UiState()
        for key in ("c", "r", terminal.ENTER, terminal.DOWN, terminal.END, "s", "S"):
            assert self.press(ui, key, jobs=[]) is None
        assert (ui.mode, ui.cursor) == (LIST, None)


class TestChanges:
    def at(self, **fields: Any) -> Change:
        return replace(Change(0, states.PROGRESS, NOW), **fields)

    def test_progress_change_moves_bar(self) -> None:
        counted = {"current": 500, "total": 1000, "percent": 50, "message": "half"}
        assert EXPORT.with_change(self.at(progress=counted)).percent == 50

    def test_outdated_change_is_ignored(self) -> None:
        counted = {"current": 1, "total": 1000, "percent": 0, "message": ""}
        second = replace(EXPORT, step=2)
        assert EXPORT.with_change(self.at(progress=counted, at=ago(5))) == EXPORT
        assert second.with_change(self.at(state=states.SUCCESS)) == second
        assert FAILED.with_change(self.at()) == FAILED, "an ended job does not change"

    def test_last_successful_step_ends_job(self) -> None:
        second = EXPORT.with_change(self.at(state=states.SUCCESS))
        assert (second.state, second.step, second.percent) == (states.PROGRESS, 2, 0)
        done = second.with_change(self.at(position=1, state=states.SUCCESS, at=NOW + timedelta(seconds=1)))
        assert (done.state, done.percent, done.unfinished) == (states.SUCCESS, 100, False)

    def test_failed_step_ends_job(self) -> None:
        assert EXPORT.with_change(self.at(state=states.FAILURE)).state == states.FAILURE


class TestKeyboard:
    def test_decode_returns_names_of_keys(self) -> None:
        assert decode("a\x1b[A\x1bOB\r\x7fé\x1b[5~\t") == (
            ["a", terminal.UP, terminal.DOWN, terminal.ENTER, terminal.BACKSPACE, "é", terminal.PAGE_UP, terminal.TAB],
            "",
        )

    def test_decode_keeps_incomplete_sequence(self) -> None:
        assert decode("\x1b") == ([], "\x1b")
        assert decode("x\x1b[1") == (["x"], "\x1b[1")
        assert decode("\x1b[1~") == ([terminal.HOME], "")

    def test_decode_escape_before_other_key(self) -> None:
        assert decode("\x1bq") == ([terminal.ESCAPE, "q"], "")

    def test_decode_ignores_unknown_keys(self) -> None:
        assert decode("\x1b[15~\x1b[1;5C\x00\x02") == ([], "")

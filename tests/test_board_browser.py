"""The board and the report in a real browser; nothing that it does leaves this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from children import child
from made_runs import HARD, epoch_row, make_run

from fastrecipes.record.history import History, read_history
from fastrecipes.record.lock import locked
from fastrecipes.results.report.report import write_report
from fastrecipes.results.stored import stored_run

SOON = 20_000  # ms; the page asks every two seconds


@pytest.fixture
def board(tmp_path: Path) -> Iterator[str]:
    """The address of a board over tmp_path/runs, in a process of its own."""
    words = [sys.executable, "-m", "fastrecipes", "board", "--out", str(tmp_path / "runs")]
    with child(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]


@contextmanager
def shown(target: Path | str, **options: Any) -> Iterator[Any]:
    """A page that asks no other machine for anything and opens no dialog."""
    with opened(target, **options) as (page, asked):
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        yield page
        assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "file:///", "data:"))] == []
        assert dialogs == []


def becomes(found: Any, n: int) -> None:
    """Wait for that many elements."""
    from playwright.sync_api import expect

    expect(found).to_have_count(n, timeout=SOON)


def test_curves_grow_while_a_run_trains(board: str, tmp_path: Path) -> None:
    """A row that is appended to history.csv is drawn without a click, on the axis that was chosen."""
    run = make_run(tmp_path / "runs", vocab=HARD, name="going", status="running", steps=False)
    history = History(run / "history.csv")
    history.rows = read_history(run / "history.csv")
    with shown(board) as page:
        with locked(run / "lock"):
            page.reload()
            page.get_by_role("link", name="tiny/going").click()
            points = page.locator("#chart-loss circle.fill0")
            becomes(points, 2 * 5)  # training and validation
            page.get_by_label("seconds").check()
            history.add(epoch_row(1, 3, 5))
            becomes(points, 2 * 6)
            assert page.locator("#chart-loss").get_attribute("data-axis") == "seconds"
            assert page.locator("#result").inner_text().startswith("running: best accuracy 0.9167")
        becomes(page.get_by_text("killed: best accuracy 0.9167"), 1)


def test_a_run_that_begins_appears(board: str, tmp_path: Path) -> None:
    """In the list that is open, and its first epoch in its page."""
    with shown(board) as page:
        assert "There is no run yet" in page.locator("#runs").inner_text()
        run = make_run(tmp_path / "runs", name="new", status="running", stages=[])
        with locked(run / "lock"):
            page.get_by_role("link", name="tiny/new").click(timeout=SOON)
            becomes(page.locator("#result"), 1)
            becomes(page.locator(".chart"), 0)
            History(run / "history.csv").add(epoch_row(0, 0, 0))
            becomes(page.locator("#chart-loss circle"), 2)


def test_two_runs_are_picked_and_compared(board: str, tmp_path: Path) -> None:
    """The verdict is seen; the picks are still there when the list is."""
    make_run(tmp_path / "runs", name="a", vocab=HARD)
    make_run(tmp_path / "runs", name="b", vocab=HARD, recipe="other")
    with shown(board) as page:
        page.reload()
        button = page.get_by_role("button", name="Compare")
        assert button.is_disabled()
        for name in ("tiny/a", "other/b"):
            page.get_by_label(f"compare {name}").check()
        button.click()
        assert "no difference" in page.locator(".verdict").inner_text().lower()
        page.goto(board)
        becomes(page.locator("input[name=run]:checked"), 2)


def test_a_report_is_opened_and_sorted(tmp_path: Path) -> None:
    """As a file, by clicks on the heading of a column: up, then down."""
    report = write_report(stored_run(make_run(tmp_path, vocab=HARD, source=tmp_path / "photos")))
    with shown(report) as page:
        table = page.locator("table.sortable").first
        for ascending in (True, False):
            table.get_by_role("button", name="F1").click()
            values = [float(text) for text in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]
            assert len(values) == len(HARD)
            assert values == sorted(values, reverse=not ascending)
        assert page.locator("#chart-loss path.line").count() == 2
        assert page.locator(".images img").evaluate_all(
            "all => all.length === 12 && all.every(one => one.naturalWidth > 0)"
        )
        assert "<script>alert(1)</script>" in table.inner_text()


@pytest.mark.parametrize("width", [1280, 400])
def test_pages_fit_the_window(board: str, tmp_path: Path, width: int) -> None:
    """Wide tables scroll in their own frame, the page does not."""
    make_run(tmp_path / "runs", name="a", vocab=[*HARD, "x" * 300])
    with shown(board, width=width) as page:
        for place in ("", "/runs/tiny/a", "/runs/tiny/a/report"):
            page.goto(board + place)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place

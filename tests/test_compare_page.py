"""`fastrecipes compare --html`: one page, in a real browser."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from browser import opened
from conftest import Told
from PIL import Image
from run_folders import guesses, make_run

Cli = Callable[..., Told]
VOCAB = ("<img src=x onerror=alert(1)>", "叶子 🍃", "👩‍🔬 & \u202eecho")


@pytest.fixture
def page(cli: Cli, tmp_path: Path) -> Path:
    """The page of two recipes, leaf with two seeds; the photographs of half of the images are there."""
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [f"{i:03}<b>.jpg" for i in range(120)]
    for i, name in enumerate(names[:60]):
        Image.new("RGB", (300, 200), (4 * i, 200, 90)).save(photos / name)
    made = [("leaf", "a", 1, 6), ("leaf", "b", 2, 9), ("bark", "c", 1, 60)]
    for recipe, name, seed, wrong in made:
        probs = guesses([i >= wrong for i in range(120)])
        make_run(tmp_path / "runs", recipe, name, seed=seed, probs=probs, vocab=VOCAB, items=names, source=str(photos))
    told = cli("compare", "leaf", "bark", "--out", tmp_path / "runs", "--html", tmp_path / "page.html")
    assert (told.code, told.err) == (0, "")
    assert told.out.endswith(f"page: {tmp_path / 'page.html'}\n")
    return tmp_path / "page.html"


def test_the_page_holds_all_it_needs(page: Path) -> None:
    """Its policy allows its own script and style by their hashes, and nothing else; no address is in it."""
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    for tag in ("style", "script"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        assert f"'sha256-{b64encode(sha256(inner.encode()).digest()).decode()}'" in policy[1]
    assert set(re.findall(r"https?://[^\"' )]*", text)) == {"http://www.w3.org/2000/svg"}
    assert " style=" not in text
    assert not re.search(r"<[^>]* on\w+=", text)


def test_the_page_in_a_browser(page: Path) -> None:
    """Verdict, table that sorts, axis that switches, images: and no request leaves the page."""
    with opened(page) as (tab, asked):
        assert tab.inner_text("#verdict").startswith(("leaf is better than bark", "no difference shown"))
        heading = tab.locator("table").first.locator("th", has_text="accuracy")
        column = tab.locator("table").first.locator("tbody tr td:nth-child(2)")
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        values = [float(text) for text in column.all_inner_texts()]
        assert values == sorted(values)
        heading.locator("button").press("Enter")  # by keyboard
        assert heading.get_attribute("aria-sort") == "descending"
        assert [float(text) for text in column.all_inner_texts()] == values[::-1]
        chart = tab.locator("#chart-metric-0")
        paths = []
        for axis in ("epoch", "step", "seconds", "stage"):
            tab.check(f"input[name=axis][value={axis}]")
            assert chart.get_attribute("data-axis") == axis
            paths.append(chart.locator("svg text").last.text_content())
        assert len(set(paths)) == 4
        chart.locator("svg[role=img]").press("Home")
        assert chart.locator(".read").inner_text().startswith("stage 0.5: leaf 0.2375 / 0.2313, bark 0.125")
        lines = chart.locator("path.line").count()
        chart.locator(".legend button").first.click()
        assert chart.locator("path.line").count() == lines - 2  # both seeds
    assert asked == []


def test_names_from_data_are_shown_as_they_are(page: Path) -> None:
    """HTML as text, CJK and emoji whole, a direction character as an escape; photographs are small pictures."""
    with opened(page) as (tab, asked):
        images = tab.locator(".images li")
        words = images.all_inner_texts()
        assert len(words) == 24
        assert any("is <img src=x onerror=alert(1)>" in one for one in words)
        assert any("is 叶子 🍃" in one for one in words)
        assert any("is 👩‍🔬 & \\u202eecho" in one for one in words)
        assert "000<b>.jpg" not in tab.content()
        first = images.locator("img").first
        assert first.evaluate("one => one.complete && one.naturalWidth") == 160
        assert tab.locator("img[src=x], .images b b").count() == 0
    assert asked == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_in_both_colours(page: Path, dark: bool) -> None:
    """Nothing is wider than a telephone; the ground follows the system's choice."""
    with opened(page, width=400, dark=dark) as (tab, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is not dark
        sizes = tab.evaluate(
            "[...document.querySelectorAll('.chart svg[role=img]')].map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
        )
        assert all(size > 0.95 for size in sizes)


def test_pictures_come_from_the_data_folder_only(cli: Cli, tmp_path: Path) -> None:
    """Whatever path a split names."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    names = ["../secret.png", str(tmp_path / "secret.png"), *(f"{i}.jpg" for i in range(88))]
    for recipe, wrong in (("leaf", 0), ("bark", 40)):
        probs = guesses([i >= wrong for i in range(90)])
        make_run(tmp_path / "runs", recipe, probs=probs, items=names, source=str(tmp_path / "photos"))
    assert cli("compare", "leaf", "bark", "--out", tmp_path / "runs", "--html", tmp_path / "page.html").code == 0
    text = (tmp_path / "page.html").read_text()
    assert '<dt class="item">../secret.png</dt>' in text
    assert "data:image" not in text

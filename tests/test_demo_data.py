"""Demo data: drawn on first use, the same each time, and a problem of shapes rather than of colours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from PIL import Image

from fastrecipes.data.badges import badge_jpeg, drawn, soft
from fastrecipes.data.demo import DEMOS, PER_BRAND, demo_source, make_car_badges
from fastrecipes.data.emblems import BRANDS
from fastrecipes.errors import RecipeError, RunError

# The start of a script for another process, which has the fixture `few` too.
SCRIPT = """
import os, sys
from functools import partial
from pathlib import Path
from fastrecipes.data.demo import DEMOS, demo_source, make_car_badges
DEMOS["few"] = partial(make_car_badges, per_brand=2)
cache = Path(sys.argv[1])
"""


@pytest.fixture
def few(monkeypatch):
    """A demo data set of 16 images, drawn as the whole one is."""
    monkeypatch.setitem(DEMOS, "few", partial(make_car_badges, per_brand=2))


@pytest.fixture(scope="module")
def badges(tmp_path_factory):
    """A third of the whole set."""
    return make_car_badges(tmp_path_factory.mktemp("badges"), per_brand=40)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names(folder: Path) -> list[str]:
    """All that lies in a folder, hidden things too."""
    return sorted(entry.name for entry in folder.iterdir())


def pixels(badges: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each photo as `(size * size * 3,)` floats in 0..1, and the number of its brand."""
    files = sorted(badges.rglob("*.jpg"))
    brands = sorted(BRANDS)
    xs = [np.asarray(Image.open(file).resize((size, size)), dtype=float).ravel() / 255 for file in files]
    return np.stack(xs), np.array([brands.index(file.parent.name) for file in files])


def nearest_centroid(x: np.ndarray, y: np.ndarray) -> float:
    """The accuracy on every second image of the class means of the others."""
    means = np.stack([x[::2][y[::2] == label].mean(0) for label in np.unique(y)])
    distance = ((x[1::2, None] - means) ** 2).sum(-1)
    return float((distance.argmin(1) == y[1::2]).mean())


def test_a_photo_depends_on_its_brand_and_index_alone():
    """Drawn again, in any order and among other numpy draws, a photo has the same bytes."""
    first = [badge_jpeg(brand, 3) for brand in BRANDS]
    np.random.seed(0)
    again = [badge_jpeg(brand, 3) for brand in reversed(BRANDS)][::-1]
    assert first == again
    assert len({*first, *(badge_jpeg(brand, 4) for brand in BRANDS)}) == 2 * len(BRANDS)


def test_two_sets_are_the_same_bytes(tmp_path):
    """The set does not depend on when or where it is drawn, nor does a small one differ from a large one."""
    one = contents(make_car_badges(tmp_path / "one", per_brand=2))
    two = contents(make_car_badges(tmp_path / "two", per_brand=3))
    assert one.items() < two.items()


def test_one_folder_per_brand_with_as_many_photos_each(badges):
    """The layout is the one that a user's own photos have, and the classes are balanced."""
    assert names(badges) == sorted(BRANDS)
    for brand in BRANDS:
        assert names(badges / brand) == [f"{index:03d}.jpg" for index in range(40)]
    assert PER_BRAND * len(BRANDS) == 1000


def test_photos_are_small_rgb_jpegs_of_varied_shape(badges):
    """Any loader opens them, and sizes differ as they do in a folder of photos."""
    sizes = set()
    for file in badges.rglob("*.jpg"):
        with Image.open(file) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    assert {width > height for width, height in sizes} == {True, False}
    assert min(map(min, sizes)) > 100
    assert max(map(max, sizes)) < 240


def test_colour_does_not_give_the_brand_away(badges):
    """Mean colour tells eight brands apart hardly better than chance (12.5 %)."""
    x, y = pixels(badges, 1)
    assert nearest_centroid(x, y) < 0.25


def test_raw_pixels_do_not_give_the_brand_away(badges):
    """Where the emblem lies and how it is lit varies too much for a mean picture of each brand."""
    x, y = pixels(badges, 16)
    assert nearest_centroid(x, y) < 0.4


def test_the_emblems_differ():
    """Seen straight on, any two brands' emblems disagree on a good part of their area."""
    front = np.array([[32, 0, 32], [0, 32, 32], [0, 0, 1]])
    masks = [soft(drawn(BRANDS[b](np.random.default_rng(0)), front, (64, 64))) for b in BRANDS]
    for i, one in enumerate(masks):
        assert 0.1 < one.mean() < 0.6
        for other in masks[:i]:
            assert np.minimum(one, other).sum() < 0.75 * np.maximum(one, other).sum()


def test_the_source_is_drawn_once(few, tmp_path):
    """The second use finds the folder, tells no progress and writes nothing."""
    seen = []
    place = demo_source("few", tmp_path, on_image=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 16) for done in range(1, 17)]
    assert place == tmp_path / "demo" / "few-v1"
    written = {file: file.stat().st_mtime_ns for file in place.rglob("*")}
    assert demo_source("few", tmp_path, on_image=lambda *_: pytest.fail("drawn again")) == place
    assert {file: file.stat().st_mtime_ns for file in place.rglob("*")} == written


def test_an_interrupted_set_leaves_nothing(few, tmp_path):
    """Ctrl-C on the way, and the next use starts anew."""

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_source("few", tmp_path, on_image=stop)
    assert names(tmp_path / "demo") == []
    assert len(contents(demo_source("few", tmp_path))) == 16


def run(script: str, cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script, str(cache)], cwd=Path(__file__).resolve().parent.parent
    )


def test_a_killed_set_is_not_taken_for_whole(few, tmp_path):
    """SIGKILL leaves a part under another name, which a later use sweeps away once it is old."""
    killed = run("demo_source('few', cache, on_image=lambda n, _: n == 5 and os.kill(os.getpid(), 9))", tmp_path)
    assert killed.wait() == -signal.SIGKILL
    (part,) = (tmp_path / "demo").iterdir()
    assert len(contents(part)) == 5
    old = time.time() - 7200
    os.utime(part, (old, old))
    assert len(contents(demo_source("few", tmp_path))) == 16
    assert names(tmp_path / "demo") == ["few-v1"]


def test_a_young_part_is_left_to_its_process(few, tmp_path):
    """A part that another process may still be filling is not swept."""
    young = tmp_path / "demo" / ".few-v1-of-another"
    young.mkdir(parents=True)
    demo_source("few", tmp_path)
    assert names(tmp_path / "demo") == [young.name, "few-v1"]


def test_two_at_once_both_end_well(few, tmp_path):
    """Both draw the whole set, one takes the place, and both get it."""
    barrier, places = Barrier(2, timeout=60), []

    def first(done, total):
        if done in (1, total):
            barrier.wait()

    threads = [Thread(target=lambda: places.append(demo_source("few", tmp_path, on_image=first))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert places == [tmp_path / "demo" / "few-v1"] * 2
    assert names(tmp_path / "demo") == ["few-v1"]
    assert len(contents(places[0])) == 16


def test_two_processes_at_once_both_end_well(tmp_path):
    """The same with two processes, as when two runs start on a fresh machine."""
    both = [run("assert len(list(demo_source('few', cache).rglob('*.jpg'))) == 16", tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert names(tmp_path / "demo") == ["few-v1"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("car_bages", "source: no demo data 'car_bages'; did you mean 'car_badges'? (known: car_badges)"),
        ("zzz", "source: no demo data 'zzz' (known: car_badges)"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name, says, tmp_path):
    """Nothing is written for a name that does not exist."""
    with pytest.raises(RecipeError, match=f"^{re.escape(says)}$"):
        demo_source(name, tmp_path)
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(few, tmp_path):
    """A run that cannot have its data ends in one line, not in a traceback."""
    cache = tmp_path / "file"
    cache.write_text("in the way")
    says = f"source: cannot write the demo data 'few' under {cache}: Not a directory; "
    says += "expected a folder that can be written, with 20 MB free"
    with pytest.raises(RunError, match=f"^{re.escape(says)}$"):
        demo_source("few", cache)


def test_the_photo_bytes_are_a_whole_file():
    """The bytes of one photo open by themselves, without a folder."""
    with Image.open(BytesIO(badge_jpeg("Corluna", 7))) as image:
        image.verify()

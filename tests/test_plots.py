"""The plots of a run: which there are, and that no name in the data breaks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_runs import HARD, make_run
from PIL import Image
from sklearn.metrics import confusion_matrix

from fastrecipes.record.history import read_history
from fastrecipes.results.report.confused import confused_pairs
from fastrecipes.results.report.plots import draw_plots
from fastrecipes.results.stored import stored_run
from fastrecipes.scores.confusions import confusion_of
from fastrecipes.scores.lettering import lettering_of

ALL = ["confusion.png", "momentum.png", "overview.png", "rates.png"]


@pytest.mark.parametrize(
    "vocab", [("a", "b"), HARD, tuple(f"class {i} {'x' * 40}" for i in range(200))], ids=["two", "hard", "200"]
)
def test_every_plot_of_a_run(tmp_path: Path, vocab: tuple[str, ...]) -> None:
    """All are drawn, without a warning, whatever the classes are called and however many there are."""
    made = draw_plots(stored_run(make_run(tmp_path, vocab=vocab, per_class=2)))
    assert sorted(path.name for path in made) == ALL
    for path in made:
        with Image.open(path) as image:
            image.load()
            assert 400 <= max(image.size) <= 2000
            assert len(image.convert("L").getcolors() or range(99)) > 8, path


def test_a_run_draws_what_it_has(tmp_path: Path) -> None:
    """No predictions, no confusion matrix; no epoch, no plot at all; a metric of another name takes accuracy's place."""
    plain = make_run(tmp_path, predictions=False, steps=False, metrics=["top_3"])
    assert sorted(path.name for path in draw_plots(stored_run(plain))) == [
        name for name in ALL if name != "confusion.png"
    ]
    empty = make_run(tmp_path, name="empty", stages=[])
    assert draw_plots(stored_run(empty)) == []
    assert not (empty / "plots").exists()


def test_a_run_that_diverged_is_drawn(tmp_path: Path) -> None:
    """NaN and infinite values are gaps."""
    run = make_run(tmp_path)
    text = (run / "history.csv").read_text().replace("0.2,0.92,0.24", "nan,0.92,inf")
    assert "nan" in text
    (run / "history.csv").write_text(text)
    assert any(row["valid_loss"] == np.inf for row in read_history(run / "history.csv"))
    assert len(draw_plots(stored_run(run))) == len(ALL)


def test_one_epoch_of_one_stage(tmp_path: Path) -> None:
    """Enough for every curve: a point."""
    assert len(draw_plots(stored_run(make_run(tmp_path, stages=[1], steps=False)))) == len(ALL)


def test_confusions_equal_scikit_learn(tmp_path: Path) -> None:
    """The matrix, and the pairs that are confused most."""
    run = stored_run(make_run(tmp_path, per_class=20))
    assert run.predictions is not None
    probs, targets = run.predictions
    expected = confusion_matrix(targets, probs.argmax(1), labels=range(3))
    assert confusion_of(run.predictions).tolist() == expected.tolist()
    pairs = confused_pairs(run)
    assert sum(pair.images for pair in pairs) == expected.sum() - np.trace(expected)
    assert pairs[0].images == (expected - np.diag(np.diag(expected))).max()
    assert [pair.images for pair in pairs] == sorted((pair.images for pair in pairs), reverse=True)


def test_letters_that_no_font_has_become_words() -> None:
    """Colour emoji cannot be drawn; a letter that nobody has assigned is its number; what shows nothing goes."""
    fonts = lettering_of(["🚗 \ue000 é", "a\u200db\x1b[0m\n$x$"])
    assert fonts.shown("🚗 é") in ("[automobile] é", "🚗 é")
    assert fonts.shown("\u0378") == "\\u0378"
    assert fonts.shown("a\u200db\x1b[0m\n$x$") == "ab\\x1b[0m $x$"
    assert len(fonts.shown("long " * 50, 20)) == 20


def test_plots_replace_older_ones(tmp_path: Path) -> None:
    """Whole or not at all, no part left behind."""
    run = make_run(tmp_path)
    draw_plots(stored_run(run))
    before = (run / "plots" / "overview.png").stat().st_ino
    draw_plots(stored_run(run))
    assert (run / "plots" / "overview.png").stat().st_ino != before
    assert sorted(path.name for path in (run / "plots").iterdir()) == ALL

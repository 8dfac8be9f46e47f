"""The statistics of a comparison, beside other libraries, published values and simulated runs."""

from __future__ import annotations

import numpy as np
import pytest
from run_folders import guesses
from sklearn.metrics import accuracy_score, f1_score

from fastrecipes.results.compare.comparison import Pair
from fastrecipes.results.compare.items import Verdicts
from fastrecipes.results.compare.paired import Margin, _accuracy, _macro_f1, by_images, by_seeds, holm, mcnemar
from fastrecipes.results.compare.seeds import Side

SLEEP = (  # "Student" (1908): hours of sleep gained with two drugs, the data set of R's own examples
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)


def verdicts(*probs: np.ndarray, n_classes: int = 3) -> Verdicts:
    n = len(probs[0])
    names = tuple(f"{i}.jpg" for i in range(n))
    return Verdicts(names, tuple("abcdefg"[:n_classes]), np.arange(n) % 3, np.stack(probs))


def pair(seeds: Margin | None, images: Margin | None) -> Pair:
    tests = [test for test in (seeds, images) if test]
    sides = [Side(name, (), "accuracy", False) for name in "ab"]
    return Pair(sides[0], sides[1], seeds, images, p=max(test.p for test in tests))


@pytest.mark.parametrize(("only", "p"), [((0, 0), 1.0), ((6, 0), 2 / 64), ((1, 9), 2 * 11 / 1024), ((5, 5), 1.0)])
def test_mcnemar(only: tuple[int, int], p: float) -> None:
    """Sums of binomial coefficients."""
    assert mcnemar(*only) == pytest.approx(p)


def test_welch_as_r_computes_it() -> None:
    """t.test(extra ~ group, sleep): p = 0.07939, -3.3655 to 0.2055."""
    found = by_seeds(*SLEEP, paired=False)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert found.p == pytest.approx(0.07939, abs=1e-5)
    assert found.difference == pytest.approx(-1.58)


def test_the_paired_t_as_r_computes_it() -> None:
    """t.test(..., paired = TRUE): p = 0.002833, -2.4599 to -0.7001."""
    found = by_seeds(*SLEEP, paired=True)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=1e-6)


def test_the_visible_difference_is_seen_four_times_of_five() -> None:
    """A difference of that size, simulated, is shown in about 80 % of the samples."""
    draw = np.random.default_rng(3)
    error = by_seeds(*SLEEP, paired=False)
    assert error is not None
    sd = [np.std(group, ddof=1) for group in SLEEP]
    samples = (
        by_seeds(draw.normal(error.visible, sd[0], 10), draw.normal(0, sd[1], 10), paired=False) for _ in range(500)
    )
    assert np.mean([one.low > 0 for one in samples if one]) == pytest.approx(0.8, abs=0.07)


def test_one_seed_says_nothing() -> None:
    """Nor do seeds that change nothing."""
    assert by_seeds([0.9], [0.8, 0.7], paired=False) is None
    assert by_seeds([0.9, 0.9], [0.8, 0.8], paired=False) is None


def test_holm_as_r_computes_it() -> None:
    """p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.04], 4) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03, 0.02], 4) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    """On whole samples and on resamples, with a class that nobody has and several runs a side."""
    probs = [guesses(share, 60, seed=seed) for seed, share in enumerate((0.8, 0.7, 0.5))]
    probs = [np.pad(one, ((0, 0), (0, 1))) for one in probs]  # a fourth class, never true and never said
    said = verdicts(*probs, n_classes=4)
    draw = np.random.default_rng(1)
    places = np.stack([np.arange(60), *draw.integers(0, 60, (20, 60))])
    kinds, macro_f1 = _macro_f1(said, [0, 1], [2])
    ahead, mean = _accuracy(said, [0, 1], [2])
    assert macro_f1(kinds) == pytest.approx(macro_f1(kinds[places])[0])
    for row, f1, accuracy in zip(places, macro_f1(kinds[places]), mean(ahead[places], axis=-1), strict=True):
        true, predicted = said.targets[row], said.predicted[:, row]
        f1s = [f1_score(true, one, labels=range(4), average="macro", zero_division=0) for one in predicted]
        shares = [accuracy_score(true, one) for one in predicted]
        assert f1 == pytest.approx((f1s[0] + f1s[1]) / 2 - f1s[2])
        assert accuracy == pytest.approx((shares[0] + shares[1]) / 2 - shares[2])


def test_the_interval_of_accuracy_is_that_of_the_normal_approximation() -> None:
    """For many images: the standard error of paired shares, from the discordant images."""
    said = verdicts(guesses(0.85, 3000, seed=1), guesses(0.8, 3000, seed=2))
    found = by_images(said, [0], [1], "accuracy")
    ahead = said.right[0].astype(float) - said.right[1]
    half = 1.96 * ahead.std() / np.sqrt(3000)
    assert (found.low, found.high) == pytest.approx((ahead.mean() - half, ahead.mean() + half), abs=0.0015)
    assert (found.only_first, found.only_second) == ((ahead > 0).sum(), (ahead < 0).sum())


def test_equal_predictions_show_nothing() -> None:
    """No image is discordant: p is 1, the interval a point."""
    same = guesses(0.9, 60)
    for metric in ("accuracy", "f1_macro"):
        found = by_images(verdicts(same, same), [0], [1], metric)
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert found.visible == pytest.approx(6 / 60)
        assert pair(None, found).winner is None


@pytest.mark.parametrize(("metric", "seeds"), [("accuracy", 1), ("f1_macro", 1), ("accuracy", 3)])
def test_no_difference_is_said_where_there_is_none(metric: str, seeds: int) -> None:
    """150 pairs of equally good runs each: "better" in about 5 %, as promised, and seldom enough in each kind."""
    wrong = 0
    for sample in range(150):
        probs = [guesses(0.8, 120, seed=1000 + 2 * seeds * sample + i) for i in range(2 * seeds)]
        said = verdicts(*probs)
        first, second = range(seeds), range(seeds, 2 * seeds)
        shares = said.right.mean(1)
        over = by_seeds(shares[:seeds], shares[seeds:], paired=False)
        wrong += pair(over, by_images(said, first, second, metric)).winner is not None
    assert wrong / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_a_difference_is_found_where_there_is_one() -> None:
    """20 points on 120 images, which is far more than could be seen."""
    found = 0
    for sample in range(30):
        said = verdicts(guesses(0.9, 120, seed=sample), guesses(0.7, 120, seed=500 + sample))
        winner = pair(None, by_images(said, [0], [1], "accuracy")).winner
        found += winner is not None and winner.name == "a"
    assert found >= 28

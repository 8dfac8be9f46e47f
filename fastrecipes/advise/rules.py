"""The rules that choose a recipe, as a table: to add one, add a line.

Each rule is about one field of the recipe; of those about a field the first that holds decides. Their numbers are those of
the adjustment tables of three descriptions of training, named as `source`; "fastrecipes" marks what was added here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastrecipes.advise.facts import Facts
from fastrecipes.advise.survey import VALID_SHARE

__all__ = ["CHOICES", "Choice", "Draft", "Part", "Rule", "decide"]

TWO_PHASE = "Two-Phase Training Implementation"
THREE_STAGE = "Model Training (three stages)"
STRATEGIES = "Advanced Deep Learning Training Strategies"
HOUSE = "fastrecipes"

# ResNet's layer4 is one of five blocks, layer3 and layer4 are two: other networks are cut in the same proportion.
TOP, TOP_TWO = 0.2, 0.4


@dataclass(frozen=True)
class Part:
    """A stage to be: epochs, what trains beside the head (a share of the blocks, "head" or "all"), the rate."""

    epochs: int
    unfreeze: float | str
    lr: float


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    field: str
    """which choice it makes"""
    when: Callable[[Facts], bool]
    gives: Callable[[Facts], Any]
    because: str
    """the reason; {f.n_train} and the like stand for what is known"""
    source: str


@dataclass(frozen=True)
class Choice:
    """What a rule gave for a field, and why."""

    field: str
    value: Any
    reason: str
    source: str


Draft = dict[str, Choice]


def always(_: Facts) -> bool:
    """For the rule that holds where no other does."""
    return True


CHOICES: Sequence[Rule] = (
    Rule("arch", lambda f: f.network.given, lambda f: f.network.name, "the network that --arch names", HOUSE),
    Rule("arch", lambda f: f.machine.cuda, lambda f: f.network.name, "{f.machine.name}: a GPU trains a large network in minutes", HOUSE),
    Rule("arch", always, lambda f: f.network.name, "{f.machine.name}: a small network, limited resources", STRATEGIES),
    Rule("pretrained", lambda f: f.network.pretrained, lambda f: True, "its ImageNet weights can be had: fine-tuning needs less data and time", STRATEGIES),
    Rule("pretrained", always, lambda f: False, "its ImageNet weights can neither be found here nor be downloaded: from scratch", STRATEGIES),
    Rule("size", lambda f: f.network.only_size is not None, lambda f: f.network.only_size, "the one size that the network takes", HOUSE),
    Rule("size", lambda f: f.short_side < f.machine.usual_size, lambda f: max(32, f.short_side // 32 * 32), "half of the images are {f.short_side} px or less on their short side: more would only enlarge them", HOUSE),
    Rule("size", lambda f: f.machine.cuda, lambda f: f.machine.usual_size, "what ImageNet weights were trained on", STRATEGIES),
    Rule("size", always, lambda f: f.machine.usual_size, "on a CPU a third of the work of 224 px", HOUSE),
    Rule("bs", lambda f: f.n_train < 8 * 32, lambda f: max(2, f.n_train // 8), "{f.n_train:,} training images: 8 steps an epoch at least", HOUSE),
    Rule("bs", lambda f: f.machine.cuda and f.n_train >= 2000, lambda f: 64, "fills a GPU better than 32", HOUSE),
    Rule("bs", always, lambda f: 32, "as in the two-phase training", TWO_PHASE),
    Rule("stages", lambda f: not f.network.pretrained, lambda f: (Part(25, "all", 1e-3),), "random weights: nothing to protect by freezing", STRATEGIES),
    Rule("stages", lambda f: f.n_train > 5000, lambda f: (Part(5, "head", 1e-3), Part(15, TOP, 1e-4), Part(20, TOP_TWO, 1e-5)), "{f.n_train:,} training images, more than 5,000: three phases", TWO_PHASE),
    Rule("stages", lambda f: f.n_train > 2000, lambda f: (Part(10, "head", 1e-3), Part(45, TOP, 1e-4)), "{f.n_train:,} training images, more than 2,000: the second phase 45 epochs, more data needs more training", TWO_PHASE),
    Rule("stages", lambda f: f.n_train < 500, lambda f: (Part(10, "head", 1e-3), Part(20, TOP, 1e-4)), "{f.n_train:,} training images, fewer than 500: the second phase only 20 epochs, against overfitting", TWO_PHASE),
    Rule("stages", always, lambda f: (Part(10, "head", 1e-3), Part(30, TOP, 1e-4)), "{f.n_train:,} training images: the head alone first, then the top of the body at a tenth of the rate", TWO_PHASE),
    Rule("early_size", lambda f: f.n_train > 5000 and f.network.only_size is None, lambda f: 0.5, "a large data set: progressive resizing, the early stages at half the size", STRATEGIES),
    Rule("early_size", always, lambda f: 1.0, "", HOUSE),
    Rule("shorten", lambda f: f.estimate is not None and f.estimate > f.minutes, lambda f: f.minutes / (f.estimate or 1), "all epochs would take about {f.estimate:.0f} minutes on this machine, measured; fewer, in the same proportion, fit {f.minutes:g}", TWO_PHASE),
    Rule("shorten", always, lambda f: 1.0, "", HOUSE),
    Rule("faster", lambda f: f.estimate is not None and f.estimate > 2 * f.minutes, lambda f: 2.0, "fewer than half of the epochs: twice the rates, to get as far", TWO_PHASE),
    Rule("faster", always, lambda f: 1.0, "", HOUSE),
    Rule("monitor", lambda f: f.imbalance >= 2, lambda f: "f1_macro", "{f.imbalance:.1f} times as many images of {f.commonest!r} as of {f.rarest!r}: macro F1 counts every class the same", THREE_STAGE),
    Rule("monitor", always, lambda f: "accuracy", "the classes are about even", HOUSE),
    Rule("loss_func", lambda f: f.imbalance >= 2, lambda f: 'cross_entropy(weight="balanced")', "an image of a small class counts as much more as there are fewer of them", HOUSE),
    Rule("loss_func", always, lambda f: None, "", HOUSE),
    Rule("on_bad_image", lambda f: bool(f.survey.unreadable), lambda f: "report", "some images cannot be read: they are left out and listed", HOUSE),
    Rule("on_bad_image", always, lambda f: "error", "", HOUSE),
    Rule("valid_pct", lambda f: f.survey.own_parts, lambda f: VALID_SHARE, "the data's own train/ and val/ folders are kept apart", HOUSE),
    Rule("valid_pct", always, lambda f: VALID_SHARE, "the data has no val/ folder: a fifth of each class validates", HOUSE),
)  # fmt: skip


def decide(facts: Facts, rules: Sequence[Rule] = CHOICES) -> Draft:
    """For every field the choice of the first rule that holds."""
    draft: Draft = {}
    for rule in rules:
        if rule.field not in draft and rule.when(facts):
            draft[rule.field] = Choice(rule.field, rule.gives(facts), rule.because.format(f=facts), rule.source)
    return draft

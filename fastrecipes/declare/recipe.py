"""`Recipe` and `Stage`: all that a recipe file may say about what is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from fastrecipes.declare.caching import Views
from fastrecipes.declare.divergence import Rollback
from fastrecipes.declare.fields import Rule, declared
from fastrecipes.declare.losses import CrossEntropy, Focal
from fastrecipes.declare.mixing import MixUpCutMix
from fastrecipes.declare.point import Schedule
from fastrecipes.declare.rates import learning_rate
from fastrecipes.declare.rules import (
    callable_or,
    choice,
    is_number,
    is_whole,
    list_of,
    number,
    optional,
    path,
    text,
    whole,
)  # fmt: skip
from fastrecipes.declare.schedules import OneCycle
from fastrecipes.declare.stopping import EarlyStop

__all__ = ["BAD_IMAGES", "BATCHNORM", "LOADERS", "PRECISIONS", "Origin", "Recipe", "Stage", "first_stages", "scaled"]

BATCHNORM = ("train", "frozen_affine", "frozen")
PRECISIONS = ("auto", "fp32", "bf16", "bf16_dense", "fp16")
LOADERS = ("auto", "fastai")
BAD_IMAGES = ("error", "skip", "report")

_UNFREEZE = Rule(
    "how much of the body trains beside the head: a number of blocks, a share such as 0.3, a block's name, 'head' or 'all'",
    lambda v: (is_whole(v) and v >= 0) or (is_number(v) and 0 <= v <= 1) or (isinstance(v, str) and bool(v)),
)
_FLAG = Rule("True or False", lambda v: isinstance(v, bool))
_SYNC = Rule("True, False or 'auto'", lambda v: isinstance(v, bool) or v == "auto")
_ROLLBACK = Rule("Rollback(factor=0.1, tries=2)", lambda v: isinstance(v, Rollback))
_SCHEDULE = Rule(
    "a schedule such as OneCycle(pct_start=0.3)", lambda v: isinstance(v, Schedule) and not isinstance(v, type)
)
_DECAY = Rule("a number between 0 and 1, such as 0.999", lambda v: is_number(v) and 0 < v < 1)
_MIX = Rule("MixUpCutMix(mixup=0.2, cutmix=1.0)", lambda v: isinstance(v, MixUpCutMix))
_EARLY_STOP = Rule("EarlyStop(monitor='f1_macro', patience=5)", lambda v: isinstance(v, EarlyStop))
_CACHE = Rule(
    "'auto', 'off' or views(k=4)", lambda v: v in ("auto", "off") if isinstance(v, str) else isinstance(v, Views)
)
_CALLABLE = callable_or("a function")
_LOSS = callable_or("a loss such as cross_entropy(label_smoothing=0.1) or a function", CrossEntropy, Focal)
_OPTIMISER = Rule(
    "an optimiser such as sgd(momentum=0.9) or fastai's Adam",
    lambda v: callable(v) and not (isinstance(v, type) and is_dataclass(v)),  # adam() is one, adam alone makes one
)
_CALLBACKS = Rule("a list of fastai callbacks", lambda v: isinstance(v, (list, tuple)) and all(map(_is_callback, v)))
_HEAD = Rule(
    "a head such as mlp(widths=[512]), or a function of (n_in, n_classes) that returns a layer",
    lambda v: callable(v) and not isinstance(v, type) and not hasattr(v, "named_parameters"),
)
_METRICS = Rule(
    "a list (at least one) of names such as 'f1_macro', fastai metrics or functions of (predictions, targets)",
    lambda v: isinstance(v, (list, tuple)) and bool(v) and all(map(_is_metric, v)),
)


def _is_metric(value: object) -> bool:
    return isinstance(value, str) or callable(value) or hasattr(value, "accumulate")


def _is_callback(value: object) -> bool:
    return hasattr(value, "order") or callable(value)


@declared
class Stage:
    """One stage: how long it trains, which blocks of the network, at which rates.

    Fields from `size` on may be left out: the recipe's value then holds.

    >>> Stage(epochs=20, unfreeze=1, lr=3e-2).unfreeze
    1
    """

    epochs: Annotated[int, whole(at_least=1)]
    """passes over the training images"""
    unfreeze: Annotated[int | float | str, _UNFREEZE]
    """how much of the body trains beside the head: 0 or "head": nothing; 2: the top two blocks; 0.3: the top 30 %
    of the blocks; "layer3": that block and those above; "all" """
    lr: Annotated[Any, learning_rate()]
    """top rate: a number; fastai's slice over all groups; a list with one rate a group, body bottom-up, head last;
    rates by name ("body", "head", or a block's); layer_decay(lr=1e-3, decay=0.75); or Probe([1e-3, 3e-4]) of such"""
    size: Annotated[int | None, optional(whole(at_least=8))] = None
    """image side in pixels"""
    bs: Annotated[int | None, optional(whole(at_least=2))] = None
    """images a batch"""
    schedule: Annotated[Any, optional(_SCHEDULE)] = None
    wd: Annotated[float | None, optional(number(at_least=0))] = None
    batchnorm: Annotated[str | None, optional(choice(*BATCHNORM))] = None
    cbs: Annotated[Sequence[Any] | None, optional(_CALLBACKS)] = None
    mix: Annotated[MixUpCutMix | None, optional(_MIX)] = None
    early_stop: Annotated[EarlyStop | None, optional(_EARLY_STOP)] = None
    restore_best: Annotated[bool | None, optional(_FLAG)] = None
    clip: Annotated[float | None, optional(number(above=0))] = None
    ema: Annotated[float | None, optional(_DECAY)] = None
    accumulate: Annotated[int | None, optional(whole(at_least=1))] = None
    aug: Annotated[float | None, optional(number(at_least=0))] = None


@dataclass(frozen=True)
class Origin:
    """Where a recipe was read: its file, the text that ran, and what the command line changed, as PATH=VALUE."""

    path: Path
    text: str
    overrides: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """the options of the command line that changed it, as they were given"""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


@declared
class Recipe:
    """What is trained, stage by stage. See `design`: one recipe file holds one `recipe = Recipe(...)`.

    >>> Recipe(data=lambda size: ..., arch="resnet18", stages=[Stage(epochs=1, unfreeze="all", lr=1e-3)]).size
    224
    """

    data: Annotated[Callable[..., Any], _CALLABLE]
    """function of the image size (pixels) that returns a fastai DataBlock"""
    arch: Annotated[Any, callable_or("a torchvision function (resnet34) or a timm name as a text", str)]
    stages: Annotated[Sequence[Stage], list_of(Stage, "a list (at least one) of Stage(...)")]
    head: Annotated[Any, optional(_HEAD)] = None
    """what stands between the features and the classes, such as mlp(widths=[512], dropout=[0.3, 0.15]); None: the
    network's own classifier with a new last layer"""
    source: Annotated[str | Path | None, optional(path())] = None
    """folder of the images, or "demo:NAME" for data that is generated; --data DIR replaces it"""
    size: Annotated[int, whole(at_least=8)] = 224
    """image side in pixels"""
    bs: Annotated[int, whole(at_least=2)] = 64
    """images a batch"""
    aug: Annotated[float | None, optional(number(at_least=0))] = None
    """how strongly images are augmented: handed to `data` as its argument `aug`, which says what it means, such as
    `aug_transforms(mult=aug)`; None: `data` has its own"""
    schedule: Annotated[Any, _SCHEDULE] = OneCycle()
    opt_func: Annotated[Any, optional(_OPTIMISER)] = None
    """None: fastai's Adam"""
    wd: Annotated[float | None, optional(number(at_least=0))] = None
    """weight decay; None: the optimiser's own"""
    wd_bn_bias: Annotated[bool, _FLAG] = False
    """whether normalisation layers and biases decay too, as torch's optimisers do by themselves"""
    batchnorm: Annotated[str, choice(*BATCHNORM)] = "frozen"
    """normalisation layers of frozen blocks: "train": they keep learning (fastai's default); "frozen_affine": weight
    and bias are frozen, running statistics still move (what requires_grad=False does); "frozen": the frozen blocks
    run in eval mode"""
    loss_func: Annotated[Any, optional(_LOSS)] = None
    """a fastai loss, or cross_entropy(label_smoothing=0.1), focal(gamma=2); None: cross-entropy"""
    metrics: Annotated[Sequence[Any] | None, optional(_METRICS)] = None
    """names ("accuracy", "error_rate", "top_5", "f1_macro", "precision_macro", "recall_macro"), fastai metrics or
    functions of (predictions, targets); None: accuracy"""
    train_metrics: Annotated[bool, _FLAG] = False
    """measure the metrics after each epoch on training images too: as many as validation has, drawn once, seen as in
    validation (no augmentation, no mixing, no dropout)"""
    monitor: Annotated[str, text()] = "accuracy"
    """what picks the best checkpoint: a metric's name, "valid_loss" or "train_loss" """
    cbs: Annotated[Sequence[Any], _CALLBACKS] = ()
    """fastai callbacks; each stage gets copies of its own"""
    mix: Annotated[MixUpCutMix | None, optional(_MIX)] = None
    """MixUp and CutMix of training batches; None: none"""
    early_stop: Annotated[EarlyStop | None, optional(_EARLY_STOP)] = None
    """ends a stage, or the run, whose monitor no longer improves; None: every epoch is trained"""
    restore_best: Annotated[bool, _FLAG] = False
    """hand a stage's best weights by `monitor`, not its last, to the next"""
    clip: Annotated[float | None, optional(number(above=0))] = None
    """the norm that all gradients together are cut down to, where it is larger; None: never"""
    ema: Annotated[float | None, optional(_DECAY)] = None
    """decay of an average of the weights over a stage's steps, such as 0.999, which is validated, kept and handed on;
    None: the weights themselves are"""
    accumulate: Annotated[int, whole(at_least=1)] = 1
    """batches whose gradients add up to one optimiser step: as a batch so many times larger, in the memory of one"""
    scale_lr: Annotated[str | None, optional(choice("linear", "sqrt"))] = None
    """what several processes, whose batches add up to one, do to all rates: None: nothing; "linear": times their number;
    "sqrt": times its square root. The candidates of a Probe stay as they are: it tries them with all processes"""
    sync_bn: Annotated[bool | str, _SYNC] = "auto"
    """whether BatchNorm layers that learn take their statistics from the images of all processes, not of each its own;
    "auto": on GPUs they do; torch has nothing for it on a CPU"""
    precision: Annotated[str, choice(*PRECISIONS)] = "auto"
    """what the network computes in; weights, loss and optimiser stay fp32. "auto": bf16 on CUDA where the GPU has it,
    else fp16 with a scaled loss; on a CPU with bf16 units what was measured as faster, and remembered; fp32 elsewhere.
    "bf16_dense": bf16 but for depthwise convolutions, which many CPUs train faster in fp32"""
    channels_last: Annotated[bool | None, optional(_FLAG)] = None
    """memory format of the network: channels last; None: on a CPU, and on CUDA in half precision, where it is faster"""
    compile: Annotated[bool, _FLAG] = False
    """torch.compile the network; where frozen blocks run by themselves, these instead, block by block. Where it fails,
    train without, and say so"""
    prefix: Annotated[str, choice("auto", "off")] = "auto"
    """"auto": frozen blocks with batchnorm="frozen" run as a pure function of their own: without a gradient, with
    normalisation folded into convolutions, in bf16 where "auto" precision found that faster; "off": with the network"""
    cache: Annotated[Any, _CACHE] = "auto"
    """what such blocks make of the images is computed once and kept in the user's cache. "auto": all of it where training
    images are not augmented; where they are, fixed views of each stand in for fresh ones, one for every 2.5
    epochs of all stages on them so far, and at least four; views(k=4): so many; "off": nothing"""
    pretrained: Annotated[bool, _FLAG] = True
    """start from the ImageNet weights of the network's library"""
    weights: Annotated[str | Path | None, optional(path())] = None
    """a file with weights of the same network to start from, instead of downloading them"""
    init_from: Annotated[str | Path | None, optional(path())] = None
    """what an earlier run ended with: its folder (the best weights), RUN/stages.1, or a file; with the same classes the
    head is taken over too"""
    sampling: Annotated[str | None, optional(choice("balanced"))] = None
    """None: every training image once an epoch; "balanced": as many draws, with replacement, each class as often"""
    seed: Annotated[int, whole(at_least=0, at_most=2**32 - 1)] = 42
    on_divergence: Annotated[Any, optional(_ROLLBACK)] = None
    """None: a loss that is NaN or explodes ends the run; Rollback(): try again from the last good state, slower"""
    loader: Annotated[str, choice(*LOADERS)] = "auto"
    """"auto": where every transform of the data is a known one of fastai's, images are decoded once and augmented in one
    pass; "fastai": exactly as fastai loads them"""
    auto_batch: Annotated[bool, _FLAG] = False
    """where memory runs out, train each batch in halves, quarters ... whose gradients add up to the same step"""
    on_bad_image: Annotated[str, choice(*BAD_IMAGES)] = "error"
    """images that cannot be read: "error": nothing is trained; "skip": leave them out; "report": leave them out and
    list them in the run folder's bad_images.csv"""
    origin: Origin | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The recipe file's name, or "recipe" for one that was made in a notebook."""
        return self.origin.name if self.origin else "recipe"

    def of(self, stage: Stage, name: str) -> Any:
        """The value of the field `name` that holds in `stage`: its own, or the recipe's."""
        own = getattr(stage, name)
        return getattr(self, name) if own is None else own


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """The same recipe with every stage's epochs times `factor`, at least 1.

    >>> r = Recipe(data=lambda size: ..., arch="resnet18", stages=[Stage(epochs=20, unfreeze=0, lr=1.0)])
    >>> scaled(r, 0.1).stages[0].epochs
    2
    """
    stages = [replace(stage, epochs=max(1, round(stage.epochs * factor))) for stage in recipe.stages]
    return replace(recipe, stages=stages)


def first_stages(recipe: Recipe, n: int) -> Recipe:
    """The same recipe without the stages from number `n` on."""
    return replace(recipe, stages=list(recipe.stages)[:n])

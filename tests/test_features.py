"""Features of frozen blocks that are kept: the same training as without, whatever happens to the cache."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastrecipes import Probe, RecipeError, Stage, load_recipe, plan_recipe, views
from fastrecipes.data.digest import digest_of
from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import StoppedError
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.planning.table import plan_table
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.record.store import Store, user_store
from fastrecipes.train.features import Features
from fastrecipes.train.frozen import FrozenPrefix
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.run import run

Write = Callable[..., Path]
STILL = ("item_tfms=Resize(int(size * 1.14)),", 'item_tfms=Resize(size, method="squish"),')
NOTHING = ("batch_tfms=aug_transforms(size=size),", "")
HEAD = ("pretrained=False,", "head=mlp(widths=[16], dropout=0.3),")
IMPORT = ("OneCycle, Recipe, Stage, sgd", "OneCycle, Recipe, Stage, mlp, sgd")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights to start from, so that the network counts as trained."""
    torch.manual_seed(0)
    net = build_net(find_arch("test_resnet"), 3, size=32)
    torch.save(net.state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


@pytest.fixture
def still(recipe_file: Write, weights: Path) -> Recipe:
    """A recipe without augmentation whose frozen blocks run by themselves; its head has dropout."""
    recipe = load_recipe(recipe_file(STILL, NOTHING, HEAD, IMPORT))
    stages = [Stage(epochs=3, unfreeze=1, lr=3e-2), Stage(epochs=2, unfreeze=0, lr=1e-2, size=40)]
    return replace(recipe, stages=stages, weights=weights)


@pytest.fixture
def moving(still: Recipe, recipe_file: Write) -> Recipe:
    """The same with augmentation."""
    recipe = load_recipe(recipe_file(HEAD, IMPORT, name="moving.py"))
    return replace(recipe, stages=still.stages, weights=still.weights)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights_of(done: Any, name: str = "stages.1") -> dict[str, torch.Tensor]:
    return load_weights_file(done.folder / "checkpoints" / f"{name}.safetensors")[0]


def assert_same(a: Any, b: Any, names: Sequence[str] = ("best", "stages.0", "stages.1")) -> None:
    """The same weights after each stage and in the best epoch, bit for bit, and the same values of every epoch."""
    for name in names:
        ours, theirs = weights_of(a, name), weights_of(b, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    times = ("seconds", "wait_seconds", "images_per_s", "memory_mb")
    rows = [[{k: v for k, v in row.items() if k not in times} for row in done.history] for done in (a, b)]
    assert rows[0] == rows[1]


def stop_inside(m: pytest.MonkeyPatch) -> None:
    """Have runs stopped after the second batch of the second epoch of their first stage."""
    plain = Keeper.batch_done

    def batch_done(self: Keeper, learn: Any, batch: int) -> None:
        if (self.stage.index, learn.epoch, batch) == (0, 1, 2):
            self.stop.asked = signal.SIGTERM
        plain(self, learn, batch)

    m.setattr(Keeper, "batch_done", batch_done)


class Computed:
    """Counts the images that went through frozen blocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, plain = 0, FrozenPrefix.passing

        def passing(prefix: FrozenPrefix, x: torch.Tensor, by: Sequence[FrozenPrefix] = ()) -> list[torch.Tensor]:
            self.images += len(x) if len(x) > 2 else 0  # two made-up images are what cuts are tried on
            return plain(prefix, x, by)

        monkeypatch.setattr(FrozenPrefix, "passing", passing)


def test_kept_features_change_nothing(still: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation the run with kept features ends as the one without, and frozen blocks see each image once a stage.

    Training images on which clean metrics are measured, which are loaded otherwise, once more.
    """
    still = replace(still, train_metrics=True)
    without = run(replace(still, cache="off"), out=tmp_path / "off")
    computed = Computed(monkeypatch)
    assert_same(run(still, out=tmp_path / "kept"), without)
    checked = 2 * 8  # the check before training tries a batch of each stage
    assert computed.images == 2 * (48 + 12) + checked
    computed.images = 0
    assert_same(run(still, out=tmp_path / "again"), without)
    assert computed.images == checked


def test_the_prefix_changes_no_more_than_rounding(still: Recipe, tmp_path: Path) -> None:
    """Frozen blocks by themselves and with the network; without dropout, which draws other numbers there."""
    still = replace(still, head=None)
    plain = weights_of(run(replace(still, prefix="off"), out=tmp_path / "off"))
    own = weights_of(run(still, out=tmp_path / "own"))
    for name, tensor in plain.items():
        torch.testing.assert_close(own[name], tensor, rtol=1e-3, atol=1e-4)


def test_later_stages_take_what_passes_by(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that unfreeze block after block see every view once, in the first of them, and end as they would alone."""
    stages = [Stage(epochs=2, unfreeze=n, lr=1e-2) for n in (0, 1, 2)]
    recipe = replace(moving, stages=stages, cache=views(k=2))
    with monkeypatch.context() as m:
        m.setattr(Features, "later", [])
        apart = run(recipe, out=tmp_path / "apart")
    user_store().clear()
    computed = Computed(monkeypatch)
    done = run(recipe, out=tmp_path / "once")
    assert computed.images == 2 * 36 + 12 + 8
    assert_same(done, apart, ("stages.0", "stages.1", "stages.2"))


def test_the_candidates_of_a_probe_share_features(
    moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen blocks see no more images with three rates to try than with one that is given."""
    computed = Computed(monkeypatch)
    run(replace(moving, stages=moving.stages[:1]), out=tmp_path / "given")
    given, computed.images = computed.images, 0
    user_store().clear()
    stage = replace(moving.stages[0], lr=Probe([3e-2, 3e-3, 3e-4], budget=2))
    run(replace(moving, stages=[stage]), out=tmp_path / "probed")
    assert computed.images == given == 3 * 36 + 12 + 8


def test_views(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With augmentation each epoch trains on a view of its own, as many as are asked for, and then on the first again."""
    computed = Computed(monkeypatch)
    run(replace(moving, cache=views(k=2)), out=tmp_path / "runs")
    checked = 2 * 8
    assert computed.images == (2 * 36 + 12) + (2 * 36 + 12) + checked
    plan, _ = plan_recipe(moving)
    assert [(s.prefix.views, s.prefix.augmented) for s in plan.stages if s.prefix] == [
        ((0, 1, 2), True),
        ((0, 1), True),
    ]


def test_stages_on_the_same_images_share_views(moving: Recipe) -> None:
    """Their epochs count together, the views that served least come first, and what comes later changes nothing before it."""

    def kept(*epochs: int, **given: Any) -> list[tuple[int, ...]]:
        stages = [Stage(epochs=n, unfreeze=0, lr=1e-2) for n in epochs]
        plan, _ = plan_recipe(replace(moving, stages=stages, **given))
        return [stage.prefix.views for stage in plan.stages if stage.prefix]

    five = kept(5, 5, 5, 5)
    assert five == [(0, 1, 2, 3), (1, 2, 3, 0), (4, 5, 2, 3, 0), (6, 7, 4, 5, 1)]
    assert [kept(*[5] * n) for n in (1, 2, 3)] == [five[:1], five[:2], five[:3]]
    assert kept(5, 5, 40)[:2] == five[:2]
    assert kept(3, 2, 1, cache=views(k=4)) == [(0, 1, 2), (3, 0), (1,)]
    other = [
        Stage(epochs=5, unfreeze=0, lr=1e-2),
        Stage(epochs=5, unfreeze=0, lr=1e-2, size=40),
        Stage(epochs=5, unfreeze=0, lr=1e-2),
    ]
    plan, _ = plan_recipe(replace(moving, stages=other))
    assert [stage.prefix.views for stage in plan.stages if stage.prefix] == [(0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 3, 0)]


def test_the_plan_tells_how_many_views_are_new(moving: Recipe, capsys: Any) -> None:
    """A stage shares its views with those before it on the same images."""
    stages = [Stage(epochs=5, unfreeze=0, lr=1e-2) for _ in range(3)]
    plan, _ = plan_recipe(replace(moving, stages=stages))
    Console(width=200).print(plan_table(plan))
    told = [line.partition(" run ")[2] for line in capsys.readouterr().out.splitlines() if ": frozen " in line]
    assert [text.partition("; kept")[0] for text in told] == [
        "for 4 views of each image, which stand in for fresh ones",
        "for 4 views of each image (none of them new), which stand in for fresh ones",
        "for 5 views of each image (2 of them new), which stand in for fresh ones",
    ]


def test_each_epoch_sees_its_view(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order that the plan says, over stages."""
    plain, seen = Features.batches, list[tuple[int, int]]()

    def batches(self: Features, part: Any, epoch: int) -> Any:
        if part.trains:
            seen.append((len(part.views), part.view_of(epoch)))
        return plain(self, part, epoch)

    monkeypatch.setattr(Features, "batches", batches)
    stages = [Stage(epochs=3, unfreeze=0, lr=1e-2), Stage(epochs=3, unfreeze=0, lr=1e-2)]
    run(replace(moving, stages=stages, cache=views(k=2)), out=tmp_path / "runs")
    assert seen == [(2, 0), (2, 1), (2, 0), (2, 1), (2, 0), (2, 1)]


def test_other_views_are_told(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A run that goes on with a smaller cache cannot keep what it kept: it says that it is another training now."""
    with monkeypatch.context() as m:
        stop_inside(m)
        with pytest.raises(StoppedError):
            run(moving, out=tmp_path / "cut")
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "100KB")
    run(moving, out=tmp_path / "cut", resume=True)
    told = "WARNING: views of stages.0 were 1, 2, 3 when the run began and are fresh ones now; the run goes on, but not bit for bit"
    assert told in capsys.readouterr().err


def test_views_differ(moving: Recipe, tmp_path: Path) -> None:
    """One view for all epochs is another training than a view for each."""
    one = run(replace(moving, cache=views(k=1)), out=tmp_path / "one")
    three = run(replace(moving, cache=views(k=3)), out=tmp_path / "three")
    assert not torch.equal(weights_of(one)["layer4.0.conv1.weight"], weights_of(three)["layer4.0.conv1.weight"])


@pytest.mark.parametrize("spoil", ["deleted", "damaged", "kept"])
def test_a_stopped_run_goes_on(
    spoil: str, moving: Recipe, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As it would have, whatever became of the cache."""
    whole = run(moving, out=tmp_path / "whole")
    user_store().clear()
    with monkeypatch.context() as m:
        stop_inside(m)
        with pytest.raises(StoppedError):
            run(moving, out=tmp_path / "cut")
    spoiled = list((own_cache / "arrays").glob("*.array"))
    assert spoiled
    for path in spoiled if spoil != "kept" else []:
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.unlink() if spoil == "deleted" else path.write_bytes(data)
    capsys.readouterr()
    assert_same(run(moving, out=tmp_path / "cut", resume=True), whole)
    assert ("is damaged" in capsys.readouterr().err) == (spoil == "damaged")


def test_stopped_while_features_are_computed(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first batch of an epoch, of its validation, and after a resume inside an epoch: the run ends as the whole one."""
    from fastrecipes.train.keeper import Watching

    whole = run(moving, out=tmp_path / "whole")
    plain, seen = Watching.computing, 0
    for stop_at in (1, 7, 9, 14):
        user_store().clear()
        seen = 0

        def computing(self: Watching, what: str, done: int, total: int, stop_at: int = stop_at) -> None:
            nonlocal seen
            seen += 1
            if seen == stop_at:
                self.keeper.stop.asked = signal.SIGTERM
            plain(self, what, done, total)

        with monkeypatch.context() as m:
            m.setattr(Watching, "computing", computing)
            with pytest.raises(StoppedError):
                run(moving, out=tmp_path / f"cut{stop_at}")
        assert_same(run(moving, out=tmp_path / f"cut{stop_at}", resume=True), whole)


def test_a_changed_image_is_seen(moving: Recipe, tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file under the same name has other features."""
    import shutil

    photos = tmp_path / "photos"
    shutil.copytree(shapes, photos)
    recipe = replace(moving, source=photos, stages=moving.stages[:1])
    run(recipe, out=tmp_path / "runs")
    computed = Computed(monkeypatch)
    run(recipe, out=tmp_path / "runs")
    assert computed.images == 8
    first, second = sorted((photos / "circle").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    computed.images = 0
    run(recipe, out=tmp_path / "runs")
    assert computed.images > 8


def in_a_process(recipe: Path, weights: Path, out: Path) -> None:
    stages = [Stage(epochs=3, unfreeze=1, lr=3e-2), Stage(epochs=2, unfreeze=0, lr=1e-2, size=40)]
    run(replace(load_recipe(recipe), stages=stages, weights=weights), out=out)


def test_two_runs_share_a_cache(moving: Recipe, weights: Path, tmp_path: Path) -> None:
    """At the same time: both end as one alone."""
    alone = run(moving, out=tmp_path / "alone")
    user_store().clear()
    assert moving.origin is not None
    spawn = multiprocessing.get_context("spawn")
    args = [(moving.origin.path, weights, tmp_path / name) for name in ("a", "b")]
    both = [spawn.Process(target=in_a_process, args=one) for one in args]
    for process in both:
        process.start()
    for process in both:
        process.join()
    for name in ("a", "b"):
        (folder,) = (tmp_path / name).glob("*/*")
        theirs = load_weights_file(folder / "checkpoints" / "stages.1.safetensors")[0]
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in weights_of(alone).items())


def test_a_full_disk(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that cannot be written are kept in memory, which is said and recorded, and the run is the same."""
    import errno

    whole = run(moving, out=tmp_path / "whole")
    user_store().clear()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "writing", full)
    done = run(moving, out=tmp_path / "full")
    assert_same(done, whole)
    told = "stages.0: features of the training images, view 1 of 3 cannot be kept in the user's cache (No space left on device): in memory"
    assert told in (done.folder / "run.json").read_text()
    assert f"WARNING: {told}" in (done.folder / "log.txt").read_text()


def test_no_room_at_all(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with fresh augmentation, says so, and still does after a resume with room again."""
    with monkeypatch.context() as m:
        m.setattr(Store, "writing", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
        m.setattr("fastrecipes.train.features.free_memory", lambda: 0)
        whole = run(replace(moving, stages=moving.stages[:1]), out=tmp_path / "whole")
        stop_inside(m)
        with pytest.raises(StoppedError):
            run(replace(moving, stages=moving.stages[:1]), out=tmp_path / "cut")
    done = run(replace(moving, stages=moving.stages[:1]), out=tmp_path / "cut", resume=True)
    assert torch.equal(
        weights_of(done, "stages.0")["layer4.0.conv1.weight"], weights_of(whole, "stages.0")["layer4.0.conv1.weight"]
    )
    assert "the frozen blocks run for every image of every epoch" in (done.folder / "run.json").read_text()


def test_what_keeps_no_features(moving: Recipe) -> None:
    """The plan says why."""
    from fastai.callback.core import Callback

    from fastrecipes import MixUpCutMix

    class Looks(Callback):
        def before_batch(self) -> None:
            pass

    for change, why in (
        ({"cache": "off"}, "cache='off'"),
        ({"mix": MixUpCutMix()}, "mixed images are new in each epoch"),
        ({"cbs": [Looks]}, "a callback of the recipe sees the images"),
    ):
        plan, _ = plan_recipe(replace(moving, **change))
        prefix = plan.stages[0].prefix
        assert prefix is not None
        assert (prefix.views, prefix.why) == ((), why)
    for change in ({"prefix": "off"}, {"batchnorm": "train"}, {"batchnorm": "frozen_affine"}):
        plan, _ = plan_recipe(replace(moving, **change))
        assert plan.stages[0].prefix is None


class Compiled:
    """Has torch.compile work without its slow C++ back end, or fail, and counts the graphs that it makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs, self.networks, self.fails = 0, list[Any](), False
        forward, network = torch.compile, torch.nn.Module.compile

        def of_network(module: torch.nn.Module, **words: Any) -> None:
            self.networks.append(words)
            network(module, backend="eager", **words)

        monkeypatch.setattr(torch, "compile", lambda f, **words: forward(f, **{"backend": self.backend, **words}))
        monkeypatch.setattr(torch.nn.Module, "compile", of_network)
        self.forget()

    def forget(self) -> None:
        """As a new process: a block that is built alike is not compiled again."""
        torch._dynamo.reset()
        self.graphs = 0

    def backend(self, graph: Any, _: Any) -> Any:
        if self.fails:
            raise RuntimeError("no C++ compiler")
        self.graphs += 1
        return graph.forward


def test_a_compiled_recipe_keeps_features(moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of compiled frozen blocks, each once a stage; the network is compiled where no frozen blocks run by themselves."""
    compiled, computed = Compiled(monkeypatch), Computed(monkeypatch)
    stages = [replace(moving.stages[0], unfreeze=n) for n in (0, 1, "all")]
    recipe = replace(moving, stages=stages, compile=True)
    plan, _ = plan_recipe(recipe)
    assert [(stage.compiled, stage.prefix and stage.prefix.compiled) for stage in plan.stages] == [
        (False, True), (False, True), (True, None),
    ]  # fmt: skip
    done, names = run(recipe, out=tmp_path / "compiled"), ["stages.0", "stages.1"]
    assert compiled.networks == [{"dynamic": False}]
    assert compiled.graphs == 5  # blocks; the second prefix has some of them, and takes its features on the way
    images, computed.images = computed.images, 0
    as_it_is = run(replace(recipe, compile=False), out=tmp_path / "as_it_is")
    assert images == computed.images > 0  # under keys of their own, as many in one pass
    assert_same(done, as_it_is, names)
    computed.images = 0
    assert_same(done, run(recipe, out=tmp_path / "again"), [*names, "stages.2"])
    assert computed.images == 0


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_compiler_that_fails_on_frozen_blocks(
    moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, cache: str
) -> None:
    """They run as they are, which is said and recorded, and so they do after a kill when the compiler works again."""
    compiled = Compiled(monkeypatch)
    recipe = replace(moving, compile=True, cache=cache)
    as_it_is = run(replace(recipe, compile=False), out=tmp_path / "as_it_is")
    compiled.fails = True
    done = run(recipe, out=tmp_path / "failed")
    words = "stages.0: torch.compile failed (backend='backend' raised:): the frozen blocks run as they are"
    assert capsys.readouterr().err.count(f"WARNING: {words}") == 1
    assert done.folder.joinpath("run.json").read_text().count("torch.compile failed") == 2  # in both stages
    assert_same(done, as_it_is)
    with monkeypatch.context() as m:
        stop_inside(m)
        with pytest.raises(StoppedError):
            run(recipe, out=tmp_path / "killed")
    compiled.fails = False
    compiled.forget()
    assert_same(run(recipe, out=tmp_path / "killed", resume=True), done, ["stages.0"])
    assert compiled.graphs == 5  # blocks of the second stage alone


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_ctrl_c_while_blocks_are_compiled(
    moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """It ends the compiler too, which is no failure of its own: the run stops, and goes on with compiled blocks, bit for bit."""
    compiled = Compiled(monkeypatch)
    recipe = replace(moving, compile=True, cache=cache)
    whole = run(recipe, out=tmp_path / "whole")
    user_store().clear()
    compiled.forget()
    plain, stops = compiled.backend, list[Any]()

    def interrupted(graph: Any, inputs: Any) -> Any:
        if stops:
            stops.pop().asked = signal.SIGINT
            raise RuntimeError("interrupted")
        return plain(graph, inputs)

    with monkeypatch.context() as m:
        begins = Keeper.epoch_begins
        m.setattr(Keeper, "epoch_begins", lambda self: (stops.append(self.stop), begins(self))[1])
        m.setattr(compiled, "backend", interrupted)
        with pytest.raises(StoppedError, match=r"stopped by SIGINT at stages.0 epoch 1, batch"):
            run(recipe, out=tmp_path / "cut")
    done = run(recipe, out=tmp_path / "cut", resume=True)
    assert_same(done, whole)
    assert "fallbacks" not in (done.folder / "run.json").read_text()


def test_a_killed_run_goes_on_with_compiled_blocks(
    moving: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with features computed anew."""
    compiled = Compiled(monkeypatch)
    recipe = replace(moving, compile=True, cache="off")
    whole = run(recipe, out=tmp_path / "whole")
    with monkeypatch.context() as m:
        stop_inside(m)
        with pytest.raises(StoppedError):
            run(recipe, out=tmp_path / "killed")
    compiled.forget()
    assert_same(run(recipe, out=tmp_path / "killed", resume=True), whole)
    assert compiled.graphs > 0


def test_the_plan_says_that_frozen_blocks_are_compiled(moving: Recipe, capsys: Any) -> None:
    """Where they run by themselves, kept or not."""
    for cache, words in (("auto", "for 3 views"), ("off", "in every epoch without a gradient")):
        plan, _ = plan_recipe(replace(moving, compile=True, cache=cache))
        Console(width=200).print(plan_table(plan))
        assert f"run, compiled by torch.compile, {words}" in capsys.readouterr().out


def test_a_cache_that_is_too_small(moving: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit is looked at before anything is computed."""
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "100KB")
    plan, _ = plan_recipe(moving)
    prefix = plan.stages[0].prefix
    assert prefix is not None
    assert prefix.why == "they would fill more than half of the cache"
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "lots")
    with pytest.raises(RecipeError, match="expected a size such as 20GB or 500MB"):
        plan_recipe(moving)


def test_digests() -> None:
    """Equal for what means the same, different for other settings and other code."""
    from fastai.vision.all import Resize, aug_transforms

    assert digest_of(Resize(32), {"a": 1}) == digest_of(Resize(32), {"a": 1})
    assert digest_of(Resize(32)) != digest_of(Resize(33))
    assert digest_of(*aug_transforms(max_rotate=10)) == digest_of(*aug_transforms(max_rotate=10))
    assert digest_of(*aug_transforms(max_rotate=10)) != digest_of(*aug_transforms(max_rotate=11))
    assert digest_of(lambda x: x + 1) != digest_of(lambda x: x + 2)
    assert digest_of(torch.ones(2)) != digest_of(torch.zeros(2))

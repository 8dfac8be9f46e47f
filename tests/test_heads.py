"""Heads: which layers a word means, that they stand in every kind of network, and that they train."""

from __future__ import annotations

import gc
import io
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, make_images
from fastai.layers import AdaptiveConcatPool2d, Flatten
from fastai.torch_core import apply_init
from fastai.vision.learner import create_head
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from fastrecipes import Recipe, RecipeError, Stage, concat_pool, fastai_head, linear, load_recipe, mlp, plan_recipe
from fastrecipes.nets.arch import build_net, check_size, find_arch
from fastrecipes.nets.blocks import Blocks, cut, parameters_of
from fastrecipes.nets.heads import Pool, heads_in
from fastrecipes.nets.library import Arch
from fastrecipes.nets.weights import load_weights
from fastrecipes.planning.table import plan_table
from fastrecipes.record.checkpoint import load_weights_file
from fastrecipes.train.keeper import Keeper
from fastrecipes.train.run import run

HEADS: dict[str, Any] = {
    "linear": linear(dropout=0.2),
    "mlp": mlp(widths=[16, 8], dropout=[0, 0.3, 0.1], activation="gelu", batchnorm=True),
    "fastai_head": fastai_head(lin_ftrs=[16]),
    "concat_pool": concat_pool(widths=[16]),
}
# Features that the library's classifier is given, and channels of the map before the pooling.
NETS = {
    "torchvision/resnet18": (512, 512),
    "torchvision/resnet34": (512, 512),
    "torchvision/resnet50": (2048, 2048),
    "torchvision/efficientnet_b0": (1280, 1280),
    "torchvision/mobilenet_v3_small": (576, 576),
    "torchvision/convnext_tiny": (768, 768),
    "timm/resnet50": (2048, 2048),
    "timm/efficientnet_b0": (1280, 1280),
    "timm/tf_efficientnet_lite0": (1280, 1280),
    "timm/mobilenetv3_small_100": (1024, 1024),
    "timm/convnext_tiny": (768, 768),
    "timm/vit_tiny_patch16_224": (192, 192),
    "timm/swin_tiny_patch4_window7_224": (768, 768),
}
ON_META = {
    "torchvision/swin_t": (768, 768),
    "torchvision/regnet_y_400mf": (440, 440),
    "torchvision/googlenet": (1024, 1024),
    "torchvision/vgg11": (25088, 512),
    "torchvision/squeezenet1_0": (512, 512),
    "torchvision/maxvit_t": (512, 512),
    "timm/deit3_small_patch16_224": (384, 384),
    "timm/convnextv2_atto": (320, 320),
    "timm/densenet121": (1024, 1024),
    "timm/vit_base_patch16_clip_224": (768, 768),
    "timm/test_vit": (64, 64),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name: str, head: Any, n: int = 3, *, meta: bool = False, size: int | None = None) -> tuple[nn.Module, Blocks]:
    """A network with a head of its own, and its blocks."""
    arch = find_arch(name)
    net = build_net(arch, n, size=size, head=head, meta=meta)
    return net, cut(net, arch)


def layers_of(head: Any, n_in: int, n_classes: int) -> list[str]:
    """The layers that a word means, as torch shows them."""
    return [repr(layer) for layer in head(n_in, n_classes)]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (linear(), [nn.Linear(512, 4)]),
        (linear(dropout=0.2), [nn.Dropout(0.2), nn.Linear(512, 4)]),
        (mlp(widths=[512], dropout=[0, 0.3]), [nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 4)]),
        (mlp(), [nn.Dropout(0.3), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.15), nn.Linear(512, 4)]),
        (
            mlp(widths=[8, 6], dropout=0.1, activation="silu", batchnorm=True),
            [
                *(nn.BatchNorm1d(512), nn.Dropout(0.1), nn.Linear(512, 8), nn.SiLU()),
                *(nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 6), nn.SiLU()),
                *(nn.BatchNorm1d(6), nn.Dropout(0.1), nn.Linear(6, 4)),
            ],
        ),
        (
            concat_pool(widths=[8]),
            [
                *(nn.BatchNorm1d(512), nn.Dropout(0.25), nn.Linear(512, 8), nn.ReLU()),
                *(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)),
            ],
        ),
    ],
)  # fmt: skip
def test_what_a_word_means(head: Any, expected: list[nn.Module]) -> None:
    """The third and fourth are the heads of the two documents that the recipes follow."""
    assert layers_of(head, 512, 4) == [repr(layer) for layer in expected]


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "silu", "hardswish", "tanh"])
def test_every_activation_is_torchs(name: str) -> None:
    """The word is the function's name in torch."""
    x = torch.randn(5)
    assert torch.equal(mlp(activation=name, dropout=0)(2, 2)[1](x), getattr(torch.nn.functional, name)(x))


@pytest.mark.parametrize(
    ("head", "same"),
    [
        (fastai_head(), {}),
        (fastai_head(lin_ftrs=[32, 16], ps=[0.1, 0.2, 0.3]), {"lin_ftrs": [32, 16], "ps": [0.1, 0.2, 0.3]}),
        (fastai_head(lin_ftrs=[], ps=0.1), {"lin_ftrs": [], "ps": 0.1}),
        (fastai_head(lin_first=True, bn_final=True), {"lin_first": True, "bn_final": True}),
        (fastai_head(first_bn=False), {"first_bn": False}),
    ],
)  # fmt: skip
def test_fastais_head_is_fastais(head: Any, same: dict[str, Any]) -> None:
    """The same layers, initial weights and numbers as `create_head` after fastai's own pooling."""
    torch.manual_seed(0)
    theirs = create_head(64, 3, **same)
    apply_init(theirs)
    torch.manual_seed(0)
    ours = nn.Sequential(Pool(maxima=True), *head(128, 3))
    assert [repr(layer) for layer in theirs[2:]] == [repr(layer) for layer in ours[1:]]
    x = torch.randn(2, 64, 5, 4)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=1e-6)


def test_pooling_equals_fastais_in_every_layout() -> None:
    """Maps with channels first or last, and tokens of which the first two stand for no place in the image."""
    x = torch.randn(2, 6, 5, 4)
    theirs = nn.Sequential(AdaptiveConcatPool2d(), Flatten())(x)
    tokens = torch.cat([torch.full((2, 2, 6), 9.0), x.flatten(2).transpose(1, 2)], 1)
    given = {1: (x, 0), 3: (x.permute(0, 2, 3, 1), 0), 2: (tokens, 2)}
    for channels, (each, skip) in given.items():
        torch.testing.assert_close(Pool(maxima=True, channels=channels, skip=skip)(each), theirs)
        torch.testing.assert_close(Pool(maxima=False, channels=channels, skip=skip)(each), theirs[:, 6:])


def widths(name: str, word: str) -> int:
    """Features that the head of a network gets."""
    pooled, channels = (NETS | ON_META)[name]
    return 2 * channels if word in ("fastai_head", "concat_pool") else pooled


def stands(net: nn.Module, blocks: Blocks, name: str, word: str) -> None:
    """Assert that body and head hold every parameter once, that the head is the word's, the body the library's."""
    held = [[path for path, _ in parameters_of(net, block)] for block in blocks]
    assert all(held)
    assert Counter(path for paths in held for path in paths) == Counter(p for p, _ in net.named_parameters())
    (place,) = heads_in(net)
    ours = {f"{place}.{path}" for path, _ in net.get_submodule(place).named_parameters()}
    assert ours <= set(held[-1])
    expected = HEADS[word](widths(name, word), 3)
    sizes = [tuple(p.shape) for p in net.get_submodule(place).parameters()]
    assert sizes == [tuple(p.shape) for p in expected.parameters()]
    tops, plain = below_the_classifier(name)
    assert [key for key in net.state_dict() if not key.startswith(tops)] == plain


@cache
def below_the_classifier(name: str) -> tuple[tuple[str, ...], list[str]]:
    """Paths of the library's own classifier, and the names of the tensors below it."""
    arch = find_arch(name)
    net = build_net(arch, 3, meta=True)
    tops = tuple(f"{path}." for path in cut(net, arch).head.members)
    return tops, [key for key in net.state_dict() if not key.startswith(tops)]


@pytest.mark.parametrize(
    ("name", "word"),
    [(name, word) for name in NETS for word in ("linear", "fastai_head")]
    + [(name, word) for name in ON_META for word in ("mlp", "concat_pool")],
)
def test_a_head_stands_where_the_classifier_stood(name: str, word: str) -> None:
    """For a plan: its features are as many as the network gives, and the body keeps the library's names."""
    net, blocks = made(name, HEADS[word], meta=True)
    stands(net, blocks, name, word)


@pytest.mark.parametrize(
    ("name", "word"),
    [(name, "concat_pool") for name in NETS]
    + [(name, "mlp") for name in NETS if "convnext" in name or "mobile" in name or "tiny" in name],
)
def test_a_head_trains_in_every_network(name: str, word: str) -> None:
    """Forward, and a gradient for every parameter of body and head."""
    torch.manual_seed(0)
    net, blocks = made(name, HEADS[word], size=32)
    stands(net, blocks, name, word)
    out = net.train()(torch.randn(3, 3, 32, 32))
    assert out.shape == (3, 3)
    nn.functional.cross_entropy(out, torch.tensor([0, 1, 2])).backward()
    assert [path for path, p in net.named_parameters() if p.grad is None] == []
    del net
    gc.collect()


def test_a_norm_below_the_head_stays() -> None:
    """ConvNeXt's classifier begins with a norm that is trained with the body; both libraries keep it."""
    for name, norm in (("torchvision/convnext_tiny", "classifier.0"), ("timm/convnext_tiny", "head.norm")):
        for head in (linear(), concat_pool()):
            net = build_net(find_arch(name), 3, head=head, meta=True)
            assert net.get_submodule(norm).weight.shape == (768,)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["convnext_tiny", "resnet18"])
def test_both_libraries_pool_alike(name: str) -> None:
    """With the same weights, torchvision's and timm's networks give a pooling head the same features."""
    nets = [build_net(Arch(library, name), 3, head=concat_pool()).eval() for library in ("torchvision", "timm")]
    theirs, ours = (net.state_dict() for net in nets)
    pairs = zip(ours.items(), theirs.values(), strict=True)
    nets[1].load_state_dict({k: v.reshape(own.shape) for (k, own), v in pairs})
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(nets[0](x), nets[1](x), rtol=1e-4, atol=1e-5)


def test_the_tokens_of_the_image_are_pooled() -> None:
    """In a ViT the class token is left out."""
    net = build_net(find_arch("timm/vit_tiny_patch16_224"), 3, head=concat_pool()).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = net.forward_features(x)[:, 1:]  # type: ignore[operator]
        features = torch.cat([tokens.amax(1), tokens.mean(1)], 1)
        head = net.get_submodule("head")
        torch.testing.assert_close(net(x), nn.Sequential(*list(head)[1:])(features))  # type: ignore[call-overload]


def test_one_network_takes_every_stages_size() -> None:
    """A head does not tie a transformer to one size."""
    for name in ("timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224", "torchvision/resnet18"):
        net, _ = made(name, concat_pool(), meta=True, size=64)
        for size in (96, 160, 224):
            check_size(net, find_arch(name), size)


def error_of(name: str, head: Any) -> str:
    """What building the network for a plan is refused with."""
    with pytest.raises(RecipeError) as e:
        build_net(find_arch(name), 3, head=head, meta=True)
    return str(e.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torchvision/densenet121", "it pools by a function, not by a layer"),
        ("torchvision/mobilenet_v2", "it pools by a function, not by a layer"),
        ("torchvision/mnasnet0_5", "it pools by a function, not by a layer"),
        ("torchvision/shufflenet_v2_x0_5", "it pools by a function, not by a layer"),
        ("torchvision/vit_b_16", "it pools by a function, not by a layer"),
        ("timm/deit_tiny_distilled_patch16_224", "it has 2 classifiers"),
        ("timm/pit_ti_224", "its classifier is given (1, 1, 256)"),
        ("timm/vit_base_patch16_siglip_224", "its own pooling has weights: attn_pool.kv.bias"),
    ],
)
def test_a_network_that_keeps_its_map_is_refused_pooling_heads(name: str, why: str) -> None:
    """The error says why, and which heads it takes."""
    head = concat_pool(widths=[8])
    assert error_of(name, head) == (
        f"head: {name} does not hand over its feature map ({why}), which {head!r} pools; give linear() or mlp()"
    )
    net, blocks = made(name, mlp(widths=[8]), meta=True)
    assert len(heads_in(net)) == len(blocks.head.members)


@pytest.mark.parametrize("head", [mlp(widths=[8]), concat_pool()])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm/volo_d1_224", "2 unlike classifiers (head, aux_head)"),
        ("timm/crossvit_9_240", "a classifier of many parts (head)"),
    ],
)
def test_a_network_with_unlike_classifiers_takes_no_head(name: str, why: str, head: Any) -> None:
    """VOLO's second classifier is given every token, CrossViT's is one for each of its branches."""
    assert error_of(name, head) == f"head: {name} has {why}; leave head out"


def own(n_in: int, n_classes: int) -> nn.Module:
    """A head as a recipe may write it."""
    return nn.Sequential(nn.LayerNorm(n_in), nn.Linear(n_in, n_classes))


def test_a_recipe_may_bring_a_head_of_its_own() -> None:
    """A function of the numbers of features and classes."""
    net, blocks = made("torchvision/resnet18", own)
    assert [path for path, _ in parameters_of(net, blocks.head)] == [
        "fc.0.weight",
        "fc.0.bias",
        "fc.1.weight",
        "fc.1.bias",
    ]
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def nothing(n_in: int, n_classes: int) -> Any:
    """Forgets to return."""


def other(n_in: int, n_classes: int) -> nn.Module:
    """Gives too many numbers."""
    return nn.Linear(n_in, 9)


def narrow(n_in: int, n_classes: int) -> nn.Module:
    """Takes too few features."""
    return nn.Linear(7, n_classes)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (nothing, "head: nothing returned None; expected a torch layer (nn.Module)"),
        (other, "head: other gives (1, 9) for one image; expected (1, 3), one a class"),
        (narrow, "head: narrow does not take its features: "),
    ],
)
def test_a_head_of_ones_own_that_does_not_fit_is_refused(head: Any, says: str) -> None:
    """While the network is built, which a plan does."""
    assert error_of("torchvision/resnet18", head).startswith(says)


def test_a_module_is_not_a_head() -> None:
    """It would be shared by every network that the recipe builds."""
    with pytest.raises(
        RecipeError, match=r"^Recipe.head: expected a head such as mlp\(widths=\[512\]\), or a function"
    ):
        Recipe(
            data=lambda size: None, arch="resnet18", stages=[Stage(epochs=1, unfreeze=0, lr=1.0)], head=nn.Linear(2, 2)
        )


def test_weights_fill_the_body_and_leave_a_head_new(tmp_path: Path) -> None:
    """Even where a layer of the file's classifier has the name and the shape of one in the head."""
    name = "torchvision/mobilenet_v3_small"
    arch = find_arch(name)
    torch.manual_seed(1)
    donor = build_net(arch, 10).state_dict()
    save_file(donor, tmp_path / "donor.safetensors")
    net, blocks = made(name, lambda n_in, n: nn.Sequential(nn.Linear(n_in, 1024), nn.ReLU(), nn.Linear(1024, n)))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert before["classifier.0.weight"].shape == donor["classifier.0.weight"].shape
    used = load_weights(net, arch, blocks, file=tmp_path / "donor.safetensors", pretrained=True)
    assert used.detail == str(tmp_path / "donor.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key] if key.startswith("classifier.") else donor[key]), key


@pytest.mark.parametrize("word", HEADS)
def test_the_package_of_weights_fits_below_every_head(word: str) -> None:
    """EfficientNet-Lite0's file has other names, and a last layer that is not used."""
    arch = Arch("timm", "tf_efficientnet_lite0")
    net, blocks = made(str(arch), HEADS[word])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    load_weights(net, arch, blocks, file=None, pretrained=True)
    same = {k for k, v in net.state_dict().items() if torch.equal(v, before[k]) and "num_batches" not in k}
    assert same == {k for k in before if k.startswith("classifier.") and "num_batches" not in k}


@pytest.mark.parametrize("head", [linear(), concat_pool()])
def test_timms_older_files_are_understood_below_a_head(head: Any, tmp_path: Path) -> None:
    """A file whose position embedding is of another size is fitted by timm, with the head as with none."""
    arch = Arch("timm", "test_vit")
    donor = build_net(arch, 1000).state_dict()
    donor["pos_embed"] = torch.randn(1, 50, donor["pos_embed"].shape[2])
    torch.save(donor, tmp_path / "w.pth")
    net, blocks = made(str(arch), head)
    load_weights(net, arch, blocks, file=tmp_path / "w.pth", pretrained=True)
    assert torch.equal(net.state_dict()["blocks.0.attn.qkv.weight"], donor["blocks.0.attn.qkv.weight"])


def test_a_plan_counts_the_head(tmp_path: Path) -> None:
    """ResNet-18 with the first document's head and four classes: its own figures are wrong, these are torch's."""
    photos = make_images(tmp_path / "photos")
    shutil.copytree(photos / "circle", photos / "disc")
    (tmp_path / "four.py").write_text(TINY.replace("SOURCE", repr(str(photos))))
    recipe = load_recipe(tmp_path / "four.py")
    head = mlp(widths=[512], dropout=[0, 0.3])
    plan, _ = plan_recipe(replace(recipe, arch="torchvision/resnet18", head=head))
    assert (plan.groups[-1].n_params, plan.stages[0].n_trained, plan.n_params) == (264_708, 8_658_436, 11_441_220)
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(plan))
    assert f"head      {head!r}, 264,708 parameters" in console.file.getvalue()  # type: ignore[attr-defined]
    assert plan.as_dict()["head"] == repr(head)


@pytest.fixture(scope="module")
def tiny(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny recipe of two stages."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(TINY.replace("SOURCE", repr(str(shapes))))
    return load_recipe(path)


@pytest.mark.parametrize(
    ("word", "arch"), [*((word, "test_resnet") for word in [*HEADS, "own"]), ("concat_pool", "test_vit")]
)
def test_a_run_with_each_head(tiny: Recipe, tmp_path: Path, word: str, arch: str) -> None:
    """Two stages of two sizes; the head moves, and its weights are in the checkpoints under its names."""
    recipe = replace(
        tiny, head=HEADS.get(word, own), arch=arch, stages=[tiny.stages[0], replace(tiny.stages[1], size=64)]
    )
    done = run(recipe, out=tmp_path)
    (place,) = heads_in(done.net)
    first, _ = load_weights_file(done.folder / "checkpoints" / "stages.0.safetensors")
    last, _ = load_weights_file(done.folder / "checkpoints" / "stages.1.safetensors")
    assert set(first) == set(last) == set(done.net.state_dict())
    assert all(not torch.equal(first[f"{place}.{k}"], v) for k, v in done.net.get_submodule(place).named_parameters())
    fresh = build_net(find_arch(arch), 3, size=32, head=recipe.head)
    fresh.load_state_dict(last)


@pytest.mark.parametrize("word", ["mlp", "concat_pool"])
def test_a_stopped_run_goes_on_bit_for_bit_with_a_head(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Dropout and the statistics of the head's norms are part of the state."""
    recipe, plain, seen = replace(tiny, head=HEADS[word]), Keeper.batch_done, [0]
    whole = run(recipe, out=tmp_path / "whole")

    def batch_done(self: Keeper, learn: Any, batch: int) -> None:
        plain(self, learn, batch)
        seen[0] += 1
        if seen[0] == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "batch_done", batch_done)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out=tmp_path / "runs", checkpoint_every=0)
    (folder,) = (tmp_path / "runs").glob("*/*")
    again = run(recipe, out=tmp_path / "runs", resume=folder)
    assert all(torch.equal(v, again.net.state_dict()[k]) for k, v in whole.net.state_dict().items())

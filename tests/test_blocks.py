"""Networks cut into blocks: nothing lost, nothing twice, and a frozen block stays as it is."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.nets.blocks import Block, Blocks, cut, modules_of, parameters_of
from fastrecipes.nets.library import Arch

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
PAIRS = ("stem", "features.1", "features.3", "features.5", "features.7")


def numbered(name: str, n: int, start: int = 0) -> tuple[str, ...]:
    """Names of blocks that differ in a number."""
    return tuple(f"{name}.{i}" for i in range(start, start + n))


VIT = ("stem", *numbered("blocks", 12))
NAMES = {
    "torchvision/resnet18": STAGES,
    "torchvision/resnet34": STAGES,
    "torchvision/resnet50": STAGES,
    "torchvision/efficientnet_b0": numbered("features", 9),
    "torchvision/mobilenet_v2": numbered("features", 19),
    "torchvision/mobilenet_v3_small": numbered("features", 13),
    "torchvision/convnext_tiny": PAIRS,
    "torchvision/swin_t": PAIRS,
    "torchvision/densenet121": ("stem", *(f"features.denseblock{i}" for i in (1, 2, 3, 4))),
    "torchvision/shufflenet_v2_x0_5": ("stem", "stage2", "stage3", "stage4", "conv5"),
    "torchvision/squeezenet1_0": ("stem", "features.3", "features.7", "features.12"),
    "torchvision/regnet_y_400mf": ("stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))),
    "torchvision/vgg11_bn": ("stem", "features.4", "features.8", "features.15", "features.22"),
    "timm/resnet50": STAGES,
    "timm/efficientnet_b0": ("stem", *numbered("blocks", 7), "conv_head"),
    "timm/tf_efficientnet_lite0": ("stem", *numbered("blocks", 7), "conv_head"),
    "timm/mobilenetv3_small_100": ("stem", *numbered("blocks", 6), "conv_head"),
    "timm/convnext_tiny": ("stem", *numbered("stages", 4)),
    "timm/vit_tiny_patch16_224": VIT,
    "timm/vit_small_patch16_224": VIT,
    "timm/swin_tiny_patch4_window7_224": ("stem", *numbered("layers", 4)),
}
ON_META = {
    "torchvision/vit_b_16": ("stem", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))),
    "torchvision/alexnet": ("stem", "features.3", "features.6"),
    "torchvision/googlenet": ("stem", "inception3", "inception4", "inception5"),
    "torchvision/inception_v3": ("stem", "Mixed_5", "Mixed_6", "Mixed_7"),
    "torchvision/maxvit_t": ("stem", *numbered("blocks", 4)),
    "torchvision/mnasnet0_5": ("stem", *numbered("layers", 7, 8)),
    "torchvision/resnext50_32x4d": STAGES,
    "torchvision/efficientnet_v2_s": numbered("features", 8),
    "timm/deit_tiny_distilled_patch16_224": VIT,
    "timm/selecsls42": ("stem", *numbered("features", 6), "pre_head"),
    "timm/poolformer_s12": ("stem", *numbered("stages", 4)),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, Blocks, str]]:
    """A real network with 3 classes, its blocks, and its name."""
    torch.manual_seed(0)
    arch = find_arch(request.param)
    net = build_net(arch, 3)
    yield net, cut(net, arch), request.param
    del net
    gc.collect()


def backward(net: nn.Module) -> None:
    """One forward and backward pass over two random images of 32 px."""
    net.zero_grad(set_to_none=True)
    xb, yb = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    nn.functional.cross_entropy(net(xb), yb).backward()


def once(net: nn.Module, blocks: Blocks) -> None:
    """Assert that each parameter is in exactly one block, and no block is empty."""
    held = [[path for path, _ in parameters_of(net, block)] for block in blocks]
    assert all(held)
    assert Counter(path for paths in held for path in paths) == Counter(p for p, _ in net.named_parameters())


def test_blocks_are_the_networks_own_stages(made: tuple[nn.Module, Blocks, str]) -> None:
    """They are named as the library's modules, stem first, and each parameter is in one of them."""
    net, blocks, name = made
    assert blocks.names == NAMES[name]
    once(net, blocks)


@pytest.mark.parametrize("name", ON_META)
def test_blocks_need_no_memory(name: str) -> None:
    """A plan cuts large networks on the meta device."""
    arch = find_arch(name)
    net = build_net(arch, 3, meta=True)
    blocks = cut(net, arch)
    assert blocks.names == ON_META[name]
    once(net, blocks)


def test_every_parameter_gets_a_gradient(made: tuple[nn.Module, Blocks, str]) -> None:
    """No block is cut off from the loss."""
    net = made[0]
    net.requires_grad_(True)
    backward(net)
    assert [path for path, p in net.named_parameters() if p.grad is None] == []


def test_a_step_changes_what_trains_and_nothing_else(made: tuple[nn.Module, Blocks, str]) -> None:
    """With all frozen but the top block and the head, the other parameters stay the same bit for bit."""
    net, blocks, _ = made
    free = {path for block in (blocks.body[-1], blocks.head) for path, _ in parameters_of(net, block)}
    for path, p in net.named_parameters():
        p.requires_grad_(path in free)
    before = {path: p.detach().clone() for path, p in net.named_parameters()}
    backward(net)
    torch.optim.SGD(net.parameters(), lr=0.5).step()
    for path, p in net.named_parameters():
        assert (p.grad is not None) == (path in free), path
        pushed = path in free and bool((before[path] - 0.5 * p.grad != before[path]).any())  # type: ignore[operator]
        assert torch.equal(p.detach(), before[path]) != pushed, path


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_a_resnet_unfreezes_as_the_hand_written_loop_does(name: str) -> None:
    """`unfreeze=1..5` trains what `requires_grad` loops over torchvision's own model train."""
    arch = Arch("torchvision", name)
    net = build_net(arch, 3, meta=True)
    blocks = cut(net, arch)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=3)
    for k in range(6):
        for p in theirs.parameters():
            p.requires_grad = False
        layers = ["fc", "layer4", "layer3", "layer2", "layer1"]
        for layer in [*layers[: k + 1], *(["conv1", "bn1"] if k == 5 else [])]:
            for p in theirs.get_submodule(layer).parameters():
                p.requires_grad = True
        groups = blocks.groups[len(blocks.body) - blocks.n_unfrozen(k) :]
        ours = {path for block in groups for path, _ in parameters_of(net, block)}
        assert ours == {path for path, p in theirs.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "block", "members"),
    [
        ("torchvision/resnet18", "stem", ("conv1", "bn1")),
        ("torchvision/resnet18", "layer4", ("layer4",)),
        ("torchvision/convnext_tiny", "features.7", ("features.6", "features.7")),
        ("torchvision/swin_t", "features.7", ("features.6", "features.7", "norm")),
        (
            "torchvision/vit_b_16",
            "encoder.layers.encoder_layer_11",
            ("encoder.layers.encoder_layer_11", "encoder.ln"),
        ),
        ("torchvision/vit_b_16", "stem", ("class_token", "conv_proj", "encoder.pos_embedding")),
        ("torchvision/mobilenet_v3_small", "head", ("classifier",)),
        ("timm/efficientnet_b0", "blocks.6", ("blocks.6",)),
        ("timm/efficientnet_b0", "conv_head", ("conv_head", "bn2")),
        ("timm/vit_tiny_patch16_224", "blocks.11", ("blocks.11", "norm")),
        ("timm/convnext_tiny", "stages.3", ("stages.3", "head.norm")),
        ("timm/convnext_tiny", "head", ("head.fc",)),
        ("timm/deit_tiny_distilled_patch16_224", "head", ("head", "head_dist")),
    ],
)
def test_what_a_block_is_made_of(name: str, block: str, members: tuple[str, ...]) -> None:
    """A layer that shrinks the image belongs to the stage after it, a last norm to the last stage."""
    arch = find_arch(name)
    net = build_net(arch, 3, meta=True)
    assert next(b for b in cut(net, arch) if b.name == block).members == members


def test_modules_of_a_block_leave_out_bare_parameters() -> None:
    """A class token has no mode to switch."""
    arch = find_arch("torchvision/vit_b_16")
    net = build_net(arch, 3, meta=True)
    assert modules_of(net, cut(net, arch).body[0]) == [net.get_submodule("conv_proj")]


@pytest.mark.parametrize(
    ("name", "why"),
    [("csatv2", "timm names no groups of its layers"), ("gemma4_vit_570m_enc", "it has no classifier")],
)
def test_a_network_without_groups_or_classifier_is_not_cut(name: str, why: str) -> None:
    """The error names it."""
    arch = find_arch(name)
    with pytest.raises(RecipeError) as e:
        cut(build_net(arch, 3, meta=True), arch)
    assert str(e.value) == f"arch: timm/{name} cannot be cut into blocks: {why}"


def test_a_changed_network_is_not_cut_wrongly() -> None:
    """Layers that no rule knows are an error, not a part of some block."""
    arch = find_arch("torchvision/resnet18")
    net = build_net(arch, 3, meta=True)
    net.add_module("neck", nn.Linear(4, 4))
    with pytest.raises(RecipeError) as e:
        cut(net, arch)
    assert str(e.value) == (
        "arch: torchvision/resnet18 cannot be cut into blocks: no rule covers neck.weight, neck.bias"
    )


FIVE = Blocks(tuple(Block(name, (name,)) for name in STAGES), Block("head", ("fc",)))
TEN = Blocks(tuple(Block(f"b.{i}", (f"b.{i}",)) for i in range(10)), Block("head", ("fc",)))
LISTED = "stem, layer1, layer2, layer3, layer4"
COUNTED = "; or their number from the top: 1 trains layer4 and the head"


@pytest.mark.parametrize(
    ("unfreeze", "n"),
    [
        *((0, 0), (1, 1), (5, 5)),
        *(("head", 0), ("all", 5), ("layer4", 1), ("layer3", 2), ("stem", 5)),
        *((0.2, 1), (0.3, 2), (0.4, 2), (0.6, 3), (1.0, 5), (0.01, 1)),
    ],
)
def test_unfreeze_counts_shares_and_names(unfreeze: float | str, n: int) -> None:
    """A number of blocks, a share of them, or the name of the lowest one."""
    assert FIVE.n_unfrozen(unfreeze) == n


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_share_does_not_stumble_over_floats(tenths: int) -> None:
    """10 * (1 - 0.9) is a little less than 1."""
    assert TEN.n_unfrozen(tenths / 10) == tenths


@pytest.mark.parametrize(
    ("unfreeze", "says"),
    [
        ("layer9", f"unfreeze='layer9': no block of that name; did you mean 'layer4'? blocks: {LISTED}{COUNTED}"),
        ("zz", f"unfreeze='zz': no block of that name; blocks: {LISTED}{COUNTED}"),
        (7, f"unfreeze=7: the network has 5 blocks ({LISTED})"),
        (-1, f"unfreeze=-1: the network has 5 blocks ({LISTED})"),
        (True, f"unfreeze=True: the network has 5 blocks ({LISTED})"),
        (1.5, "unfreeze=1.5: a share of the blocks is above 0 and at most 1.0"),
        (float("nan"), "unfreeze=nan: a share of the blocks is above 0 and at most 1.0"),
    ],
)
def test_unfreezing_what_is_not_there_is_an_error(unfreeze: float | str, says: str) -> None:
    """The error says what was given and what the network has."""
    with pytest.raises(RecipeError) as e:
        FIVE.n_unfrozen(unfreeze)
    assert str(e.value) == says


def test_blocks_run_from_the_bottom_to_the_head() -> None:
    """The head is the last group."""
    assert [block.name for block in FIVE] == [*STAGES, "head"]
    assert FIVE.groups[-1] is FIVE.head


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/deit3_small_patch16_224"])
def test_layer_decay_is_timms(name: str) -> None:
    """Where timm's groups are our blocks, every parameter has the share of the rate that timm gives it."""
    from timm.optim._param_groups import param_groups_layer_decay

    from fastrecipes import layer_decay
    from fastrecipes.planning.rates import group_rates

    arch = find_arch(name)
    net = build_net(arch, 5, size=224, head=None, meta=True)
    blocks = cut(net, arch)
    rates = group_rates(layer_decay(lr=1.0, decay=0.75), (*blocks.names, blocks.head.name))
    groups = (*blocks.body, blocks.head)
    ours = {n: rate for block, rate in zip(groups, rates, strict=True) for n, _ in parameters_of(net, block)}
    theirs = {
        id(p): group["lr_scale"] for group in param_groups_layer_decay(net, layer_decay=0.75) for p in group["params"]
    }
    assert ours == {n: pytest.approx(theirs[id(p)]) for n, p in net.named_parameters()}


def test_layer_decay_from_the_command_line(cli: Any, recipe_file: Any) -> None:
    """As a value of --set, and its wrong numbers."""
    told = cli("plan", recipe_file(), "--set", "stages.1.lr=layer_decay(lr=1e-2, decay=0.5)")
    assert (
        "rates of stages.1: stem 0.000313, layer1 0.000625, layer2 0.00125, layer3 0.0025, layer4 0.005, head 0.01"
        in told.out
    )
    told = cli("plan", recipe_file(), "--set", "stages.1.lr=layer_decay(lr=1e-2, decay=2)")
    assert (
        told.err
        == "error: --set stages.1.lr=layer_decay(lr=1e-2, decay=2): LayerDecay.decay: expected a number between 0 and 1, got 2\n"
    )

"""Frozen blocks as a function of their own: where a network is cut, and that nothing else comes out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.nets.blocks import Blocks, cut, parameters_of
from fastrecipes.nets.calls import calls_of
from fastrecipes.nets.cutting import Cut, cut_prefix, run_rest
from fastrecipes.nets.folding import fold_norms
from fastrecipes.nets.prefix import prefix_of
from fastrecipes.train import frozen
from fastrecipes.train.frozen import FrozenPrefix

CUTS = {
    ("resnet18", 4): "layer3",
    ("resnet18", 5): "global_pool",
    ("torchvision/resnet18", 5): "avgpool",
    ("torchvision/mobilenet_v3_small", 13): "avgpool",
    ("torchvision/densenet121", 4): "features.denseblock3",
    ("tf_efficientnet_lite0", 9): "global_pool",
    ("timm/convnext_atto", 4): "stages.2",
    ("timm/regnety_002", 5): "head.drop",
}


def net_of(name: str, size: int = 64) -> tuple[nn.Module, Blocks]:
    """A network with random weights and statistics that are not those of a new one."""
    torch.manual_seed(0)
    net = build_net(find_arch(name), 3, size=size)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            torch.nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return net.eval(), cut(net, find_arch(name))


def made(name: str, n: int, size: int = 64) -> tuple[nn.Module, Cut, torch.Tensor]:
    net, blocks = net_of(name, size)
    x = torch.randn(4, 3, size, size)
    found = cut_prefix(net, blocks, n, x)
    assert found is not None
    return net, found, x


@pytest.mark.parametrize(("name", "n"), CUTS)
def test_the_rest_gives_what_the_network_gives(name: str, n: int) -> None:
    """From the features of other images than those it was cut with, bit for bit; with folded layers to rounding."""
    net, found, _ = made(name, n)
    assert found.at == CUTS[name, n]
    x = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        whole = net(x)
        assert torch.equal(run_rest(net, found, prefix_of(net, found, x, dtype=torch.float32, fold=False)(x)), whole)
        folded = prefix_of(net, found, x, dtype=torch.float32, fold=True)
        torch.testing.assert_close(run_rest(net, found, folded(x)), whole, rtol=1e-4, atol=1e-5)
        half = prefix_of(net, found, x, dtype=torch.bfloat16, fold=True)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(
            run_rest(net, found, half(x).float()), whole, rtol=0.1, atol=0.05 * float(whole.std())
        )


def test_gradients_of_the_rest() -> None:
    """Those of the network whose frozen blocks run with it, in eval mode."""
    net, found, x = made("resnet18", 4)
    other = copy.deepcopy(net)
    y = torch.tensor([0, 1, 2, 0])
    features = prefix_of(net, found, x, dtype=torch.float32, fold=False)(x)
    nn.functional.cross_entropy(run_rest(net, found, features), y).backward()
    nn.functional.cross_entropy(other(x), y).backward()
    for (name, p), (_, q) in zip(net.named_parameters(), other.named_parameters(), strict=True):
        if name.startswith(("layer4", "fc")):
            assert torch.equal(p.grad, q.grad), name
        else:
            assert p.grad is None, name


def test_every_convolution_of_a_resnet_is_folded() -> None:
    """20 of resnet18: each has its BatchNorm behind it; no normalisation layer is left."""
    net, found, x = made("torchvision/resnet18", 5)
    assert prefix_of(net, found, x, dtype=torch.float32, fold=True).n_folded == 20
    n = fold_norms(net, lambda: net(x))
    assert n == 20
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_what_is_frozen_later_does_not_reach_the_prefix() -> None:
    """It has copies of the weights; those of the network may move on."""
    net, found, x = made("resnet18", 4)
    prefix = prefix_of(net, found, x, dtype=torch.float32, fold=False)
    before = prefix(x)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    assert torch.equal(prefix(x), before)


def test_a_layer_that_draws_ends_the_prefix() -> None:
    """Dropout above the frozen blocks is drawn anew each time, so the features end below it."""
    net, blocks = net_of("torchvision/mobilenet_v2")
    x = torch.randn(2, 3, 64, 64)
    found = cut_prefix(net, blocks, len(blocks.body), x)
    assert found is not None
    assert found.at == "features"
    net.train()
    features = torch.randn(64, *found.shape)
    torch.manual_seed(1)
    first = run_rest(net, found, features)
    assert not torch.equal(first, run_rest(net, found, features))


class Skipping(nn.Module):
    """A network whose last layer looks at its first once more, past the frozen blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        first = self.stem(x)
        return self.head((self.layer(first) + first).mean((2, 3)))


def test_a_network_that_looks_past_its_frozen_blocks_is_not_cut() -> None:
    """The features of its last frozen block are not all that the head looks at: trying it tells."""
    from fastrecipes.nets.blocks import Block

    net = Skipping().eval()
    blocks = Blocks((Block("stem", ("stem",)), Block("layer", ("layer",))), Block("head", ("head",)))
    x = torch.randn(2, 3, 8, 8)
    assert cut_prefix(net, blocks, 2, x) is None
    assert cut_prefix(net, blocks, 1, x) is not None


def test_nothing_frozen_is_no_prefix() -> None:
    """And neither is a network on which all trains."""
    net, blocks = net_of("resnet18")
    assert cut_prefix(net, blocks, 0, torch.randn(2, 3, 64, 64)) is None


def test_a_cut_leaves_the_network_as_it_was() -> None:
    """Modes, hooks, gradients and forward functions."""
    net, blocks = net_of("resnet18")
    net.train()
    net.layer1.eval()  # type: ignore[union-attr]
    modes = [module.training for module in net.modules()]
    found = cut_prefix(net, blocks, 4, torch.randn(2, 3, 64, 64))
    assert found is not None
    run_rest(net, found, torch.randn(2, *found.shape))
    assert [module.training for module in net.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in net.modules())


def test_calls_of_a_network() -> None:
    """Each module's calls, nested as the network makes them."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))
    calls = calls_of(net, lambda: net(torch.zeros(1, 2)))
    assert [call.path for call in calls] == ["0", "1.0", "1.1", "1", ""]
    by_path = {call.path: call for call in calls}
    assert by_path["1.0"] in by_path["1"]
    assert by_path["0"] not in by_path["1"]
    assert by_path["1.0"].given is by_path["0"].gave


def test_parameters_stay_where_they_are() -> None:
    """The blocks of a network that was cut hold the parameters that they held."""
    net, blocks = net_of("resnet18")
    names = [name for block in blocks for name, _ in parameters_of(net, block)]
    cut_prefix(net, blocks, 4, torch.randn(2, 3, 64, 64))
    assert [name for block in blocks for name, _ in parameters_of(net, block)] == names


@dataclass(frozen=True)
class Frame:
    """What of a stage a frozen prefix asks for."""

    freeze_to: int
    size: int = 64
    bs: int = 4


@pytest.mark.parametrize(("name", "n"), CUTS)
def test_compiled_blocks_give_the_same(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through torch's compiler but for its C++ back end: bit for bit, on the way of a longer prefix too, and back again."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **words: plain(f, backend="eager", **words))
    torch._dynamo.reset()
    net, blocks = net_of(name)
    asked = {of: FrozenPrefix.of(net, blocks, Frame(of), "fp32", compiled=True) for of in (n, n - 1)}
    compiled, shorter = asked[n], asked[n - 1]
    as_it_is = FrozenPrefix.of(net, blocks, Frame(n), "fp32")
    assert compiled is not None
    assert as_it_is is not None
    assert compiled.is_compiled
    x = torch.randn(3, 3, 64, 64)
    assert torch.equal(compiled.features(x), as_it_is.features(x))
    assert compiled.digest != as_it_is.digest
    if shorter is not None and compiled.passes(shorter):
        whole, part = compiled.passing(x, [shorter])
        assert torch.equal(whole, as_it_is.features(x))
        assert torch.equal(part, shorter.features(x))
    compiled.as_it_is()
    assert not compiled.is_compiled
    assert compiled.digest == as_it_is.digest
    assert torch.equal(compiled.features(x), as_it_is.features(x))


def test_a_block_inside_which_the_features_come_out_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook that takes them would be inside what is compiled."""
    made = list[nn.Module]()
    monkeypatch.setattr(frozen, "compile_each", made.extend)
    net, blocks = net_of("resnet18")
    whole = FrozenPrefix.of(net, blocks, Frame(4), "fp32", compiled=True)
    assert whole is not None
    end = whole.prefix.net.get_submodule("layer3.0")
    found = FrozenPrefix(replace(whole.cut, at="layer3.0"), whole.prefix, 4, torch.zeros(1))
    made.clear()
    found._compile(whole.prefix.net.get_submodule(path) for path in ("layer2", "layer3", "layer3.0"))
    assert made == [whole.prefix.net.get_submodule("layer2"), end]
    assert not whole.passes(found)

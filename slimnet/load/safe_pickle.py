"""Read a torch file and run nothing that it names, but for a static list of network parts."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from slimnet.errors import InputError
from slimnet.load.importing import first_line, folders_on_path, import_module, listed

_MODULES = {
    "torch.nn.modules.activation": (
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid "
        "LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax "
        "Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold"
    ),
    "torch.nn.modules.batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    "torch.nn.modules.channelshuffle": "ChannelShuffle",
    "torch.nn.modules.container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "torch.nn.modules.conv": (
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d"
    ),
    "torch.nn.modules.dropout": (
        "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout"
    ),
    "torch.nn.modules.flatten": "Flatten Unflatten",
    "torch.nn.modules.fold": "Fold Unfold",
    "torch.nn.modules.instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "torch.nn.modules.linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "torch.nn.modules.loss": (
        "BCELoss BCEWithLogitsLoss CrossEntropyLoss HuberLoss KLDivLoss L1Loss MSELoss NLLLoss "
        "SmoothL1Loss"
    ),
    "torch.nn.modules.normalization": "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "torch.nn.modules.padding": (
        "CircularPad1d CircularPad2d ConstantPad1d ConstantPad2d ReflectionPad1d ReflectionPad2d "
        "ReplicationPad1d ReplicationPad2d ZeroPad1d ZeroPad2d"
    ),
    "torch.nn.modules.pixelshuffle": "PixelShuffle PixelUnshuffle",
    "torch.nn.modules.pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d "
        "AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d "
        "LPPool1d LPPool2d MaxPool1d MaxPool2d MaxPool3d MaxUnpool2d"
    ),
    "torch.nn.modules.rnn": "GRU GRUCell LSTM LSTMCell RNN RNNCell",
    "torch.nn.modules.sparse": "Embedding EmbeddingBag",
    "torch.nn.modules.transformer": (
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder "
        "TransformerEncoderLayer"
    ),
    "torch.nn.modules.upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
    "torch.nn.parallel.data_parallel": "DataParallel",
    "torchvision.models.alexnet": "AlexNet",
    "torchvision.models.convnext": "CNBlock ConvNeXt LayerNorm2d",
    "torchvision.models.densenet": "DenseNet _DenseBlock _DenseLayer _Transition",
    "torchvision.models.efficientnet": "EfficientNet FusedMBConv MBConv",
    "torchvision.models.googlenet": "BasicConv2d GoogLeNet Inception InceptionAux",
    "torchvision.models.inception": (
        "BasicConv2d Inception3 InceptionA InceptionAux InceptionB InceptionC InceptionD InceptionE"
    ),
    "torchvision.models.maxvit": (
        "MBConv MaxVit MaxVitBlock MaxVitLayer PartitionAttentionLayer "
        "RelativePositionalMultiHeadAttention SwapAxes WindowDepartition WindowPartition"
    ),
    "torchvision.models.mnasnet": "MNASNet _InvertedResidual",
    "torchvision.models.mobilenetv2": "InvertedResidual MobileNetV2",
    "torchvision.models.mobilenetv3": "InvertedResidual MobileNetV3",
    "torchvision.models.regnet": (
        "AnyStage BottleneckTransform RegNet ResBottleneckBlock SimpleStemIN"
    ),
    "torchvision.models.resnet": "BasicBlock Bottleneck ResNet",
    "torchvision.models.shufflenetv2": "InvertedResidual ShuffleNetV2",
    "torchvision.models.squeezenet": "Fire SqueezeNet",
    "torchvision.models.swin_transformer": (
        "PatchMerging PatchMergingV2 ShiftedWindowAttention ShiftedWindowAttentionV2 "
        "SwinTransformer SwinTransformerBlock SwinTransformerBlockV2"
    ),
    "torchvision.models.vgg": "VGG",
    "torchvision.models.vision_transformer": "Encoder EncoderBlock MLPBlock VisionTransformer",
    "torchvision.ops.misc": (
        "Conv2dNormActivation Conv3dNormActivation FrozenBatchNorm2d MLP Permute SqueezeExcitation"
    ),
    "torchvision.ops.stochastic_depth": "StochasticDepth",
}


# not subclasses of nn.Module, yet needed: each only holds data or maps tensors to tensors
_OTHERS = {
    "argparse": "Namespace",
    "functools": "partial",
    "torch._C._nn": "gelu",
    "torch.nn.functional": (
        "elu gelu hardswish hardsigmoid leaky_relu log_softmax mish relu relu6 sigmoid silu "
        "softmax tanh"
    ),
}


def _full_names(table: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module in table for name in table[module].split())


MODULE_CLASSES = _full_names(_MODULES)
"""Exact ``module.Class`` names of network parts; each must be a subclass of nn.Module."""

OTHER_NAMES = _full_names(_OTHERS)
"""Exact names of the few other things that a network may hold."""

Named = Callable[..., Any] | tuple[Callable[..., Any], str]
WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "or save model._orig_mod, what was compiled",
    "torch.nn.parallel.distributed.DistributedDataParallel": "or save model.module, what it wraps",
}


def read_pickle(path: Path, allow: Sequence[str], trust: bool, legacy: bool = False) -> Any:
    """Return the content of a torch file, on the CPU.

    Only classes of the static list and those in ``allow`` ("package.module.Class") are built.
    With ``trust`` the file's own code is run where it names something else. ``legacy`` says that
    the file has the form from before torch 1.6, whose names cannot be listed without reading it.

    Raises:
        InputError: the file names something that is not allowed, or is damaged.
    """
    names = [] if legacy else _names_in(path)
    refused = [name for name in names if not _on_list(name) and name not in allow]
    if refused and trust:
        return _read_trusting(path)
    if refused:
        raise InputError(_refusal(path, refused))
    known = MODULE_CLASSES | OTHER_NAMES if legacy else set(names)
    allowed = [found for name in sorted(known | set(allow)) for found in _resolve(name, allow)]
    try:
        # a pickle may call a class: on the meta device nn.Linear(10**9, 10**9) takes no memory;
        # classes that the user allows may need real tensors
        with safe_globals(allowed), nullcontext() if allow else torch.device("meta"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        if legacy and trust:
            return _read_trusting(path)
        # not chained: torch's text advises to switch the safety off
        raise InputError(_unreadable(path, legacy, error)) from None


def _names_in(path: Path) -> list[str]:
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path} cannot be read as a torch file ({type(error).__name__}): it is truncated, "
            "damaged, or was not written by torch.save; save it again"
        ) from None


def _on_list(name: str) -> bool:
    return name in MODULE_CLASSES or name in OTHER_NAMES


def _resolve(name: str, allow: Sequence[str]) -> list[Named]:
    """Return the object with the name it has in the file, or nothing if torchvision lacks it."""
    if _on_list(name):
        return _resolve_listed(name)
    module_name, _, class_name = name.rpartition(".")
    if name not in allow or not module_name:
        raise InputError(f"--allow takes package.module.Class; got {name!r}")
    found = getattr(import_module(module_name), class_name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise InputError(
            f"--allow takes subclasses of torch.nn.Module; {name} is not one or does not exist"
        )
    return [(found, name)]


def _resolve_listed(name: str) -> list[Named]:
    module_name, _, class_name = name.rpartition(".")
    try:  # both names come from the static list, never from the file
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError):
        if name == "torch._C._nn.gelu":  # a part of torch that is no importable module
            return [(torch.nn.functional.gelu, name)]
        return []
    is_module = isinstance(found, type) and issubclass(found, nn.Module)
    return [(found, name)] if is_module or name in OTHER_NAMES else []


def _read_trusting(path: Path) -> Any:
    try:
        with folders_on_path(Path.cwd()):
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # the file's own code may raise anything
        raise InputError(f"{path} failed while its code ran: {first_line(error)}") from error


def _refusal(path: Path, refused: Sequence[str]) -> str:
    hints = [hint for name, hint in WRAPPERS.items() if name in refused]
    return (
        f"{path} names code that is not on the safe list: {listed(refused, 10)}. Nothing was run. "
        "Either give --allow package.module.Class for each class you trust, or --trust-pickle, "
        "which runs whatever code the file holds, or save the state dict and give it with --arch"
        + "".join(f"; {hint}" for hint in hints)
    )


def _unreadable(path: Path, legacy: bool, error: Exception) -> str:
    if legacy:
        return (
            f"{path} is a torch file of the old form (before 1.6) that is damaged or holds more "
            "than weights; save its state dict again with a newer torch and give --arch"
        )
    return (
        f"{path} cannot be read safely ({type(error).__name__}): it is truncated, damaged, or "
        "not what torch.save writes; save its state dict again and give --arch"
    )

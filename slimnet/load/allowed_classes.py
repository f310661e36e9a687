"""The static list of what a model file may name without being trusted."""

from __future__ import annotations

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

# No subclasses of nn.Module, yet needed: each only holds data or maps tensors to tensors.
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

"""Turn decoded pixels, or other raw inputs, into the network's inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load import first_line, import_callable
from slimnet.options import DataOptions

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessor:
    """Resize, crop, order of channels, x scale, - mean, / std; in that order.

    ``resize`` is the short side and ``crop`` the square cut from the middle, in pixels. ``mean``
    and ``std`` are in scaled units and in the order that ``channels`` makes. ``function``, if
    any, stands for all of this.
    """

    resize: int | None
    crop: int | None
    channels: str
    scale: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    function: Callable[..., Any] | None = None
    function_name: str | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Return the float32 (C, ...) input of one image or signal, (C, ...) uint8 or float.

        Whole numbers of 64 bits, such as those of words, stay as they are.

        Raises:
            InputError: the user's callable failed or returned no floats.
        """
        if self.function is not None:
            return _call(self.function, self.function_name, image)
        if image.dtype == torch.int64:
            return image
        image = self._resized(image)
        if self.channels == "bgr":
            image = image.flip(0)
        elif self.channels == "grey" and len(image) == 3:
            image = _grey(image)
        image = image.float() * self.scale
        if self.mean is not None:
            image = image - _along_channels(self.mean, image)
        if self.std is not None:
            image = image / _along_channels(self.std, image)
        return image

    def describe(self) -> dict[str, Any]:
        """Return the steps as plain values."""
        if self.function is not None:
            return {"callable": self.function_name}
        return {
            "resize_short_side_pixels": self.resize,
            "centre_crop_pixels": self.crop,
            "channels": self.channels,
            "scale": self.scale,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }

    def _resized(self, image: Tensor) -> Tensor:
        if self.resize is None or self.crop is None:
            return image
        from torchvision.transforms import functional  # here: it takes a second to import

        if min(image.shape[1:]) != self.resize:
            image = functional.resize(image, [self.resize], antialias=True)
        return functional.center_crop(image, [self.crop])  # type: ignore[no-any-return]


def build_preprocessor(options: DataOptions, sample: Tensor) -> Preprocessor:
    """Return the preprocessing that the options ask for; ``sample`` is one raw input (C, ...).

    Raises:
        InputError: values that do not fit the image's channels, or one another.
    """
    if options.preprocess not in (None, "imagenet"):
        return _custom(options, options.preprocess or "")
    _require_images(options, sample)
    channels = 1 if options.channels == "grey" else sample.shape[0]
    mean, std = options.mean, options.std
    resize = crop = options.size
    if options.preprocess == "imagenet":
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
        crop = options.size or 224
        resize = round(crop * 256 / 224)
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise InputError(f"{name} has one value a channel, {channels} here; got {len(values)}")
    if std is not None and min(std) <= 0:
        raise InputError(f"std is above 0; got {min(std)}")
    if len(sample) not in {"bgr": (3,), "grey": (1, 3)}.get(options.channels, (len(sample),)):
        raise InputError(
            f"channels {options.channels} needs images of 3 channels; got {len(sample)}"
        )
    scale = options.scale
    if scale is None:
        scale = 1 / 255 if sample.dtype == torch.uint8 and sample.ndim >= 3 else 1.0
    return Preprocessor(resize, crop, options.channels, scale, mean, std)


def _require_images(options: DataOptions, sample: Tensor) -> None:
    """Refuse options for images where the inputs are none."""
    wanted = {
        "preprocess imagenet": options.preprocess is not None,
        f"size {options.size}": options.size is not None,
        f"channels {options.channels}": options.channels != "rgb",
    }
    given = [name for name, chosen in wanted.items() if chosen]
    if given and sample.ndim != 3:
        raise InputError(
            f"{' and '.join(given)} is for images (channels, height, width); got inputs of the "
            f"shape {tuple(sample.shape)}: leave it out"
        )
    changed = [name for name in ("scale", "mean", "std") if getattr(options, name) is not None]
    if changed and sample.dtype == torch.int64:
        raise InputError(
            f"{' and '.join(changed)} is for pixels and decimal numbers; got whole numbers, which "
            "stay as they are: leave it out"
        )


def _along_channels(values: Sequence[float], image: Tensor) -> Tensor:
    return torch.tensor(values).view(-1, *[1] * (image.ndim - 1))


def _grey(image: Tensor) -> Tensor:
    """Return the luma (1, height, width) of ITU-R BT.601, rounded where pixels are integers."""
    grey = (image.double() * torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1)).sum(0, True)
    return grey.round().to(image.dtype) if not image.is_floating_point() else grey.float()


def _custom(options: DataOptions, target: str) -> Preprocessor:
    given = [
        name for name in ("size", "mean", "std", "scale") if getattr(options, name) is not None
    ] + (["channels"] if options.channels != "rgb" else [])
    if given:
        raise InputError(
            f"preprocess {target} does all of the preprocessing; leave out {', '.join(given)}"
        )
    return Preprocessor(None, None, "rgb", 1.0, None, None, import_callable(target), target)


def _call(function: Callable[..., Any], name: str | None, image: Tensor) -> Tensor:
    try:
        result = function(image)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"preprocess {name} failed: {first_line(error)}") from error
    if not isinstance(result, Tensor) or not result.ndim or not result.is_floating_point():
        got = (
            f"{tuple(result.shape)} {result.dtype}"
            if isinstance(result, Tensor)
            else type(result).__name__
        )
        raise InputError(f"preprocess {name} must return a float tensor, one input; got {got}")
    return result.detach().float()


def with_grey_if_taken(
    options: DataOptions, network: nn.Module | None, sample: Tensor
) -> DataOptions:
    """Return the options, with channels grey where a network takes no colours; none is changed.

    ``sample`` is a raw input; if it is an image (3, height, width) the network is tried on it.
    Where the user gives ``preprocess`` or ``channels``, that holds.
    """
    colour = sample.ndim == 3 and len(sample) == 3
    if network is None or not colour or options.channels != "rgb" or options.preprocess:
        return options
    image = build_preprocessor(replace(options, mean=None, std=None), sample)(sample)
    if not _takes(network, image) and _takes(network, image[:1]):
        return replace(options, channels="grey")
    return options


def _takes(network: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            network(image.expand(2, -1, -1, -1))
    except Exception:  # a network's own code may raise anything
        return False
    return True

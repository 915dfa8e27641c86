"""The homework's networks, and the arithmetic of their shapes."""

import itertools
import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, channels_last, nn

IMAGE_LENGTH = 28
CLASSES = 10
CHANNELS = (1, 16, 32)
KERNEL, PADDING, POOL = 5, 2, 2


def conv_output_length(length: int, kernel: int, stride: int, padding: int) -> int:
    """Length of a convolution's or pooling's output: floor((length - kernel + 2 padding) / stride) + 1.

    All in positions along one axis. Raises ValueError when the kernel does not fit the padded input.
    """
    if min(length, kernel, stride) < 1 or padding < 0:
        raise ValueError(
            f"length, kernel and stride must be at least 1 and padding at least 0, "
            f"got length {length}, kernel {kernel}, stride {stride}, padding {padding}"
        )
    if kernel > length + 2 * padding:
        raise ValueError(f"a kernel of {kernel} does not fit an input of {length} padded by {padding} on both sides")
    return (length - kernel + 2 * padding) // stride + 1


def stride_for(length_in: int, length_out: int, kernel: int, padding: int) -> int:
    """Smallest stride that turns ``length_in`` positions into ``length_out``; inverse of :func:`conv_output_length`.

    From floor(span / s) = length_out - 1 the smallest candidate is floor(span / length_out) + 1 (span is the range
    the kernel can move over); raises ValueError when that candidate misses, for then no stride gives the length.
    """
    span = conv_output_length(length_in, kernel, 1, padding) - 1
    if length_out < 1:
        raise ValueError(f"the output length must be at least 1, got {length_out}")
    stride = span // length_out + 1
    if conv_output_length(length_in, kernel, stride, padding) != length_out:
        raise ValueError(
            f"no stride turns length {length_in} into {length_out} with kernel {kernel} and padding {padding}"
        )
    return stride


class ConvNet(nn.Module):
    """Two convolutions (1 to 16 to 32 channels, kernel 5, padding 2), each halved in length, then a linear layer.

    ``downsample="pool"`` halves by a 2x2 max-pooling, ``"stride"`` by the convolution's stride (:func:`stride_for`);
    ``norm="batch"`` adds a BatchNorm2d after each halving. Input (batch, 1, 28, 28) or (batch, 784), output scores
    (batch, 10). Parameters are drawn in the same order in every variant, so equal seeds give equal initial weights.

    Two things differ from the plain stack conv, ReLU, pool, flatten, linear, neither in the function computed:
    pooling comes before the ReLU (max and ReLU commute exactly, forward and backward, and the ReLU then sees a
    quarter of the values), and tensors are kept channels-last. State dicts interchange with the plain stack.
    """

    def __init__(self, norm: Literal["batch"] | None = None, downsample: Literal["pool", "stride"] = "pool") -> None:
        super().__init__()
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be None or 'batch', got {norm!r}")
        if downsample not in ("pool", "stride"):
            raise ValueError(f"downsample must be 'pool' or 'stride', got {downsample!r}")
        self.norm, self.downsample = norm, downsample
        length, convs, norms = IMAGE_LENGTH, [], []
        for channels_in, channels_out in itertools.pairwise(CHANNELS):
            pooled = conv_output_length(conv_output_length(length, KERNEL, 1, PADDING), POOL, POOL, 0)
            stride = 1 if downsample == "pool" else stride_for(length, pooled, KERNEL, PADDING)
            convs.append(nn.Conv2d(channels_in, channels_out, KERNEL, stride=stride, padding=PADDING))
            norms.append(nn.BatchNorm2d(channels_out) if norm else nn.Identity())
            length = pooled
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
        self.features = (CHANNELS[-1], length, length)
        self.linear = nn.Linear(math.prod(self.features), CLASSES)
        self.to(memory_format=channels_last)  # type: ignore[call-overload]  # absent from torch's stubs

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) or (batch, 784) to scores (batch, 10)."""
        if x.shape[1:] not in ((1, IMAGE_LENGTH, IMAGE_LENGTH), (IMAGE_LENGTH**2,)):
            raise ValueError(f"expected images of shape (batch, 1, 28, 28) or (batch, 784), got {tuple(x.shape)}")
        # With one channel both layouts have the same bytes; the strides tell the convolution to stay channels-last.
        x = x.reshape(-1, IMAGE_LENGTH, IMAGE_LENGTH, 1).permute(0, 3, 1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            if self.downsample == "pool":
                x = F.max_pool2d(x, POOL)
            x = norm(F.relu_(x))
        # The features lie channels-last. Reordering the small weight instead of them (and, going back, of their
        # gradients) spares two copies and a mixed-layout ReLU backward that takes 30 times as long.
        weight = self.linear.weight.view(-1, *self.features).permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, self.linear.bias)

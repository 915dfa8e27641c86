"""The homework's networks."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, channels_last, nn

from hw4.geometry import (
    TEXT_FILTERS,
    TEXT_KERNEL,
    TEXT_LENGTH,
    TEXT_PADDING,
    conv_output_length,
    pooling_windows,
    stride_for,
)

IMAGE_LENGTH = 28
CLASSES = 10
CHANNELS = (1, 16, 32)
KERNEL, PADDING, POOL = 5, 2, 2


class ConvNet(nn.Module):
    """Two convolutions (1 to 16 to 32 channels, kernel 5, padding 2), each halved in length, then a linear layer.

    ``downsample="pool"`` halves by a 2x2 max-pooling, ``"stride"`` by the convolution's stride (:func:`stride_for`);
    ``norm="batch"`` adds a BatchNorm2d after each halving, a function the layer that it makes for a number of channels.
    Input (batch, 1, 28, 28) or (batch, 784), output scores
    (batch, 10). Parameters are drawn in the same order in every variant, so equal seeds give equal initial weights.

    Two things differ from the plain stack conv, ReLU, pool, flatten, linear, neither in the function computed:
    pooling comes before the ReLU (max and ReLU commute exactly, forward and backward, and the ReLU then sees a
    quarter of the values), and tensors are kept channels-last. The plain stack's tensors fit as they are; its
    state dict does once its keys are named as here, ``convs.0.weight`` to ``linear.bias``.
    """

    def __init__(
        self,
        norm: Literal["batch"] | Callable[[int], nn.Module] | None = None,
        downsample: Literal["pool", "stride"] = "pool",
    ) -> None:
        super().__init__()
        if norm not in (None, "batch") and not callable(norm):
            raise ValueError(f"norm must be None, 'batch' or a function from channels to a layer, got {norm!r}")
        if downsample not in ("pool", "stride"):
            raise ValueError(f"downsample must be 'pool' or 'stride', got {downsample!r}")
        self.norm, self.downsample = norm, downsample
        length, convs, norms = IMAGE_LENGTH, [], []
        for channels_in, channels_out in itertools.pairwise(CHANNELS):
            pooled = conv_output_length(conv_output_length(length, KERNEL, 1, PADDING), POOL, POOL, 0)
            stride = 1 if downsample == "pool" else stride_for(length, pooled, KERNEL, PADDING)
            convs.append(nn.Conv2d(channels_in, channels_out, KERNEL, stride=stride, padding=PADDING))
            make_norm = nn.BatchNorm2d if norm == "batch" else norm or (lambda _channels: nn.Identity())
            norms.append(make_norm(channels_out))
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
                x = F.max_pool2d(x, POOL) if x.requires_grad else _largest_of_four(x)
            x = norm(F.relu_(x))
        # The features lie channels-last. Reordering the small weight instead of them (and, going back, of their
        # gradients) spares two copies and a mixed-layout ReLU backward that takes 30 times as long.
        weight = self.linear.weight.view(-1, *self.features).permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, self.linear.bias)


def _largest_of_four(x: Tensor) -> Tensor:
    """2x2 max-pooling of channels-last images, at a third of torch's time, which also notes where each maximum was."""
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


TEXT_CLASSES = 6


class TextCNN(nn.Module):
    """Conv1d 1 to ``filters``, MaxPool1d (both kernel 3, padding 1, the given stride), linear, log-softmax.

    Input (batch, 1, length), output log-probabilities (batch, n_classes). ``linear_in`` is the number of features
    that reach the linear layer: 6144, 256, 64, 64, 64, 64 at strides 1, 5, 10, 30, 100, 500.
    """

    def __init__(
        self, stride: int, *, length: int = TEXT_LENGTH, n_classes: int = TEXT_CLASSES, filters: int = TEXT_FILTERS
    ) -> None:
        super().__init__()
        self.stride, self.length = stride, length
        self.linear_in = filters * len(pooling_windows(length, stride))
        self.conv = nn.Conv1d(1, filters, TEXT_KERNEL, stride=stride, padding=TEXT_PADDING)
        self.linear = nn.Linear(self.linear_in, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, length) to log-probabilities (batch, n_classes)."""
        if x.shape[1:] != (1, self.length):
            raise ValueError(f"expected inputs of shape (batch, 1, {self.length}), got {tuple(x.shape)}")
        x = F.max_pool1d(self.conv(x), TEXT_KERNEL, self.stride, TEXT_PADDING)
        return F.log_softmax(self.linear(x.flatten(1)), dim=1)


class TextCNNEnsemble(nn.Module):
    """Several independent :class:`TextCNN` of one stride as one model: the same networks with a leading trial axis.

    Input (trials, batch, 1, length), output (trials, batch, n_classes). Only the positions that pooling looks at are
    convolved. Each pooling window has a left, a middle and a right position; one that falls off the edge is replaced
    by the middle, which changes no maximum. With T trials, R convolved positions, P windows, C filters, K classes the
    parameters are ``conv`` (T, 4, C): three taps and the bias, ``linear_weight`` (T, K, P C) and ``linear_bias``
    (T, 1, K).
    """

    def __init__(
        self,
        stride: int,
        trials: int,
        *,
        length: int = TEXT_LENGTH,
        n_classes: int = TEXT_CLASSES,
        filters: int = TEXT_FILTERS,
    ) -> None:
        super().__init__()
        if trials < 1:
            raise ValueError(f"trials must be at least 1, got {trials}")
        self.stride, self.length, self.filters, self.n_classes = stride, length, filters, n_classes
        windows = pooling_windows(length, stride)
        middle = [p * stride for p in range(len(windows))]
        # At stride 1 neighbouring windows share positions: one run of them, its ends repeated, serves all three sides.
        if stride == 1:
            positions = [middle[0], *middle, middle[-1]]
            starts = (0, 1, 2)
        else:
            positions = [
                m + side if m + side in window else m
                for side in (-1, 0, 1)
                for m, window in zip(middle, windows, strict=True)
            ]
            starts = (0, len(middle), 2 * len(middle))
        self.windows = len(windows)
        self._sides = tuple(slice(start, start + self.windows) for start in starts)
        taps = torch.tensor([[position * stride + tap for tap in range(TEXT_KERNEL)] for position in positions])
        self.register_buffer("_taps", taps, persistent=False)  # into the input padded by one on each side
        self._buffers_of: dict[tuple[str, torch.Size], Tensor] = {}
        models = [TextCNN(stride, length=length, n_classes=n_classes, filters=filters) for _ in range(trials)]
        self.conv, self.linear_weight, self.linear_bias = map(nn.Parameter, self._stack(models))

    @property
    def trials(self) -> int:
        """Number of networks."""
        return len(self.conv)

    def _stack(self, models: Sequence[TextCNN]) -> tuple[Tensor, Tensor, Tensor]:
        """The models' parameters in this class's layout."""
        with torch.no_grad():
            conv = torch.stack([torch.cat([m.conv.weight[:, 0].T, m.conv.bias[None]]) for m in models])  # type: ignore[index]
            weight = torch.stack([m.linear.weight.view(self.n_classes, self.filters, -1).mT.flatten(1) for m in models])
            return conv, weight, torch.stack([m.linear.bias[None] for m in models])

    @classmethod
    def from_models(cls, models: Sequence[TextCNN]) -> Self:
        """Put models of one shape together, exactly; raises ValueError for none or for shapes that differ."""
        shapes = {(m.stride, m.length, m.linear.out_features, m.conv.out_channels) for m in models}
        if len(shapes) != 1:
            raise ValueError(f"expected at least one model, all of one stride and shape, got {sorted(shapes)}")
        ((stride, length, n_classes, filters),) = shapes
        with torch.random.fork_rng(devices=[]):
            ensemble = cls(stride, len(models), length=length, n_classes=n_classes, filters=filters)
        ensemble.conv, ensemble.linear_weight, ensemble.linear_bias = map(nn.Parameter, ensemble._stack(models))
        return ensemble

    def to_models(self) -> list[TextCNN]:
        """Take the networks apart again, exactly."""
        models = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for conv, weight, bias in zip(self.conv, self.linear_weight, self.linear_bias, strict=True):
                model = TextCNN(self.stride, length=self.length, n_classes=self.n_classes, filters=self.filters)
                model.to(conv.dtype)
                model.conv.weight.copy_(conv[:-1].T[:, None])
                model.conv.bias.copy_(conv[-1])  # type: ignore[union-attr]
                model.linear.weight.copy_(weight.view(self.n_classes, self.windows, self.filters).mT.flatten(1))
                model.linear.bias.copy_(bias[0])
                models.append(model)
        return models

    def receptive_fields(self, x: Tensor) -> Tensor:
        """The inputs (..., 1, length) that each convolved position sees and a constant one: (..., R, 4)."""
        if x.shape[-2:] != (1, self.length):
            raise ValueError(f"expected inputs of shape (..., 1, {self.length}), got {tuple(x.shape)}")
        taps = self.get_buffer("_taps")
        fields = F.pad(x.squeeze(-2), (TEXT_PADDING, TEXT_PADDING))[..., taps]
        return torch.cat([fields, torch.ones_like(fields[..., :1])], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (trials, batch, 1, length) to log-probabilities (trials, batch, n_classes)."""
        fields = self.receptive_fields(x)
        convolved = (fields.flatten(1, 2) @ self.conv).view(*fields.shape[:-1], self.filters)
        left, middle, right = (convolved[:, :, side] for side in self._sides)
        pooled = torch.maximum(torch.maximum(left, middle), right).flatten(2)
        return F.log_softmax(pooled @ self.linear_weight.mT + self.linear_bias, dim=-1)

    @torch.no_grad()
    def loss_gradients(self, fields: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the trials' mean negative log-likelihoods, in the order of the parameters.

        ``fields`` (trials, batch, R, 4) comes from :meth:`receptive_fields`, y (trials, batch) are classes. It is
        what autograd makes of :meth:`forward`, in a third of its memory traffic: large intermediates live in
        buffers that are kept (fresh pages cost more than the arithmetic), gradients go around the scatter that
        pooling asks for, and every product has its long side last.
        """
        trials, batch, rows, taps = fields.shape
        windows, filters = self.windows, self.filters
        wide = (trials, batch, windows, filters)
        convolved = self._kept("convolved", trials, batch * rows, filters)
        torch.bmm(fields.view(trials, batch * rows, taps), self.conv, out=convolved)
        left, middle, right = (convolved.view(trials, batch, rows, filters)[:, :, side] for side in self._sides)
        # The first of equal values wins, as in torch's own pooling.
        pooled = torch.maximum(left, middle, out=self._kept("pooled", *wide))
        middle_wins = torch.sub(middle, left, out=self._kept("middle", *wide))  # over the left where positive
        right_wins = torch.sub(right, pooled, out=self._kept("right", *wide))  # over both where positive
        torch.maximum(pooled, right, out=pooled)
        features = pooled.view(trials, batch, -1)
        scores = torch.baddbmm(self.linear_bias.mT, self.linear_weight, features.mT).mT  # long side last: transposed
        errors = F.softmax(scores, dim=-1)
        errors.scatter_add_(-1, y.unsqueeze(-1), torch.full_like(errors[..., :1], -1))
        errors /= batch
        d_weight = torch.bmm(errors.mT, features)
        d_pooled = torch.bmm(errors, self.linear_weight, out=self._kept("d_pooled", trials, batch, windows * filters))
        # Each window's gradient belongs to one side. Summed over windows it meets that side's inputs: begin as if all
        # belonged to the left, and correct by the difference of inputs where it belongs to the right or the middle.
        d_pooled = d_pooled.view(wide)
        left_fields, middle_fields, right_fields = (
            fields[:, :, side].reshape(trials, batch * windows, taps).mT for side in self._sides
        )
        d_conv = torch.bmm(left_fields, d_pooled.view(trials, batch * windows, filters))
        d_side = self._kept("d_side", *wide)
        _threshold_backward(d_pooled, right_wins, 0, grad_input=d_side)
        flat = d_side.view(trials, batch * windows, filters)
        torch.baddbmm(d_conv, right_fields - left_fields, flat, out=d_conv)
        d_pooled -= d_side
        _threshold_backward(d_pooled, middle_wins, 0, grad_input=d_side)
        torch.baddbmm(d_conv, middle_fields - left_fields, flat, out=d_conv)
        return d_conv, d_weight, errors.sum(1, keepdim=True)

    def _kept(self, name: str, *shape: int) -> Tensor:
        """A buffer of this shape that outlives the call; its contents do not."""
        key = (name, torch.Size(shape))
        if key not in self._buffers_of:
            self._buffers_of[key] = self.conv.new_empty(shape)
        return self._buffers_of[key]

    def _apply(self, *arguments: Any, **keywords: Any) -> Self:
        """What ``to``, ``double`` and their like call: buffers of another type or device are of no use."""
        self._buffers_of.clear()
        return super()._apply(*arguments, **keywords)  # type: ignore[no-untyped-call,no-any-return]


_threshold_backward = torch.ops.aten.threshold_backward.grad_input

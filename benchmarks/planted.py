"""Faults to plant: mistakes that training survives, so that only its numbers tell. A gate worth having catches each.

And no fault, but rounding: what another processor does to a run.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import hw4.data.vectors
import hw4.experiments
import hw4.sweep
from hw4.data.images import Data
from hw4.models import ConvNet, TextCNN, TextCNNEnsemble

SHUFFLED_SHARE = 0.05
LEARNING_RATE_FACTOR = 0.8
ROUNDING = 1e-7


def shuffled_labels(patch: pytest.MonkeyPatch) -> None:
    """The labels of 5% of the training questions change places with one another."""
    load = hw4.data.vectors.load_questions

    def shuffled(*arguments: Any, **keywords: Any) -> Data:
        questions = load(*arguments, **keywords)
        generator = torch.Generator().manual_seed(0)
        n = len(questions.y_train)
        chosen = torch.randperm(n, generator=generator)[: round(SHUFFLED_SHARE * n)]
        questions.y_train[chosen] = questions.y_train[chosen.roll(1)]
        return questions

    patch.setattr(hw4.data.vectors, "load_questions", shuffled)


def no_bias(patch: pytest.MonkeyPatch) -> None:
    """Convolutions and linear layers have no bias: it is zero and stays so."""
    _after(patch, ConvNet, "__init__", lambda model: _without_bias([*model.convs, model.linear]))
    _after(patch, TextCNN, "__init__", lambda model: _without_bias([model.conv, model.linear]))
    gradients = TextCNNEnsemble.loss_gradients

    def without(self: TextCNNEnsemble, fields: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d_conv, d_weight, d_bias = gradients(self, fields, y)
        d_conv[:, -1] = 0
        return d_conv, d_weight, torch.zeros_like(d_bias)

    patch.setattr(TextCNNEnsemble, "loss_gradients", without)


def _without_bias(layers: list[Any]) -> None:
    """Zero the biases for good: they take no part in training, but keep their place in the parameters."""
    for layer in layers:
        torch.nn.init.zeros_(layer.bias)
        layer.bias.requires_grad_(requires_grad=False)


def wrong_padding(patch: pytest.MonkeyPatch) -> None:
    """Images wrap around at their edges instead of ending in zeros; vectors have both their zeros on the left."""

    def wrap(model: ConvNet) -> None:
        for conv in model.convs:
            conv.padding_mode = "circular"  # type: ignore[assignment]

    _after(patch, ConvNet, "__init__", wrap)
    fields = TextCNNEnsemble.receptive_fields

    def shifted(self: TextCNNEnsemble, x: Tensor) -> Tensor:
        return fields(self, torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], dim=-1))

    patch.setattr(TextCNNEnsemble, "receptive_fields", shifted)


def smaller_learning_rate(patch: pytest.MonkeyPatch) -> None:
    """Training uses 0.8 times the learning rate it is told."""
    for module, name in ((hw4.experiments, "train_pass"), (hw4.sweep, "train_ensemble")):
        train = getattr(module, name)

        def slower(*arguments: Any, learning_rate: float, train: Any = train, **keywords: Any) -> Any:
            return train(*arguments, learning_rate=LEARNING_RATE_FACTOR * learning_rate, **keywords)

        patch.setattr(module, name, slower)


def batchnorm_in_eval_mode(patch: pytest.MonkeyPatch) -> None:
    """BatchNorm stays in evaluation mode while training, normalising by statistics that never move."""
    _after(patch, ConvNet, "train", lambda model: model.norms.eval())


def nudged_weights(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Initial weights move by about float32's unit roundoff, in a direction that the seed decides."""
    generator = torch.Generator().manual_seed(seed)

    def nudged(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **keywords: Any) -> Any:
            model = make(*arguments, **keywords)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 + ROUNDING * torch.randn(parameter.shape, generator=generator))
            return model

        return made

    patch.setattr(hw4.experiments, "build_convnet", nudged(hw4.experiments.build_convnet))
    patch.setattr(TextCNNEnsemble, "from_models", nudged(TextCNNEnsemble.from_models))


def _after(patch: pytest.MonkeyPatch, kind: type, name: str, then: Callable[[Any], object]) -> None:
    method = getattr(kind, name)

    def wrapped(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = method(self, *arguments, **keywords)
        then(self)
        return result

    patch.setattr(kind, name, wrapped)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "shuffled-labels": shuffled_labels,
    "no-bias": no_bias,
    "wrong-padding": wrong_padding,
    "smaller-learning-rate": smaller_learning_rate,
    "batchnorm-in-eval-mode": batchnorm_in_eval_mode,
}

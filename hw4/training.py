"""Plain minibatch SGD and evaluation for any model on tensors: numbers in, numbers out, nothing printed or timed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw4.models import TextCNNEnsemble

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss over a batch from outputs (batch, ...) and targets (batch, ...), as a tensor of no dimensions."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Mean loss (nats) and accuracy (share of examples in [0, 1]) over a data set."""

    loss: float
    accuracy: float


def chunks(x: Tensor, y: Tensor, chunk_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split examples along the first axis, in order, into the fewest chunks of at most ``chunk_size``.

    Chunk lengths differ by at most one, so no BatchNorm statistic ever rests on a short remainder.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    check_examples(x, y)
    parts = math.ceil(len(x) / chunk_size)
    return zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)


def check_examples(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x and y hold the same, non-zero number of examples along their first axis."""
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"inputs and targets must be equally many and at least one, got {len(x)} and {len(y)}")


def draw_batches(n: int, *, batch_size: int, generator: torch.Generator, updates: int | None = None) -> Tensor:
    """Draw minibatches of indices into n examples, uniformly with replacement: (updates, batch_size).

    By default as many as count as one pass: round(n / batch_size), at least one.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the number of examples ({n}), got {batch_size}")
    if updates is None:
        updates = max(1, round(n / batch_size))
    return torch.randint(n, (updates, batch_size), generator=generator, device=generator.device)


def train_pass(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    learning_rate: float | Sequence[float],
    batch_size: int,
    generator: torch.Generator,
    loss: Loss = F.cross_entropy,
    momentum: float = 0.0,
    velocities: Sequence[Tensor] = (),
) -> float:
    """Run one pass of SGD in place, w <- w - learning_rate * (minibatch gradient), and return the mean minibatch loss.

    x is (n, ...), y is (n,); batches are drawn with replacement. ``learning_rate`` may be one for each trained
    parameter, in the model's order. With ``velocities``, one for each of them and zero at first, which are kept up to
    date, it is v <- momentum v + gradient, w <- w - learning_rate v, as torch.optim.SGD's. The model is left in
    training mode. The result is not finite when the training diverged. Raises ValueError for a batch larger than the
    data, or momentum without velocities.
    """
    check_examples(x, y)
    batches = draw_batches(len(x), batch_size=batch_size, generator=generator).to(x.device)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    values = [p.detach() for p in parameters]  # share storage with the parameters, without their history
    rates = learning_rate if isinstance(learning_rate, Sequence) else [learning_rate] * len(values)
    if momentum and not velocities:
        raise ValueError(f"momentum {momentum:g} needs velocities, a tensor of zeros for each trained parameter")
    losses = []
    for batch in batches:
        objective = loss(model(x.index_select(0, batch)), y.index_select(0, batch))
        steps: Sequence[Tensor] = torch.autograd.grad(objective, parameters)
        if velocities:
            steps = [v.mul_(momentum).add_(gradient) for v, gradient in zip(velocities, steps, strict=True)]
        for value, step, rate in zip(values, steps, rates, strict=True):
            value.sub_(step, alpha=rate)
        losses.append(objective.detach())
    return torch.stack(losses).double().mean().item()


@torch.no_grad()
def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = F.cross_entropy, chunk_size: int = 100
) -> Evaluation:
    """Mean loss and accuracy over examples x (n, ...) with classes y (n,), in evaluation mode, from one forward pass.

    Chunks are weighted by their length, so any chunk size gives the full-batch mean up to rounding; the default keeps
    activations in cache. The model's mode is put back.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        total, correct = 0.0, 0
        for inputs, targets in chunks(x, y, chunk_size):
            outputs = model(inputs)
            total += loss(outputs, targets).item() * len(targets)
            correct += int((outputs.argmax(1) == targets).sum())
    finally:
        for module, mode in modes:
            module.training = mode
    return Evaluation(loss=total / len(x), accuracy=correct / len(x))


def train_ensemble(
    model: TextCNNEnsemble,
    x: Tensor,
    y: Tensor,
    *,
    learning_rate: float,
    momentum: float,
    batch_size: int,
    epochs: int,
    generators: Sequence[torch.Generator],
) -> int:
    """Train every network of an ensemble in place on x (n, 1, length), y (n,) by SGD with momentum.

    Each epoch goes through all examples once, trial t in an order drawn from ``generators[t]``; the last batch may be
    short. As ``torch.optim.SGD``: v <- momentum v + gradient, w <- w - learning_rate v. Returns the number of epochs
    made, which is smaller once no trial has finite parameters left: such parameters never become finite again.
    """
    check_examples(x, y)
    if len(generators) != model.trials:
        raise ValueError(f"expected one generator for each of {model.trials} trials, got {len(generators)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    fields = model.receptive_fields(x)
    values = [p.detach() for p in model.parameters()]
    velocities = [torch.zeros_like(value) for value in values]
    for epoch in range(1, epochs + 1):
        order = torch.stack([torch.randperm(len(x), generator=generator) for generator in generators])
        for batch in torch.split(order, batch_size, dim=1):
            gradients = model.loss_gradients(fields[batch], y[batch])
            for value, velocity, gradient in zip(values, velocities, gradients, strict=True):
                velocity.mul_(momentum).add_(gradient)
                value.sub_(velocity, alpha=learning_rate)
        if not any(torch.isfinite(conv).all() for conv in model.conv):
            return epoch
    return epochs

"""A model's mean loss over a data set as a function of its flat parameter vector, and its first two derivatives."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from hw4.specs import NormMode
from hw4.training import Loss, check_examples, chunks, draw_batches

Piece = tuple[Any, Tensor]
"""Inputs of some examples, as the model takes them, and their targets."""


class ObjectiveError(ValueError):
    """The loss is no fixed function of the parameters, or no function of them at all; says why."""


class Objective:
    """f(w) = mean loss over all examples, for a copy of a model at flat parameters w (p,).

    ``x`` (n, ...) and ``y`` (n, ...) are tensors, cut into chunks of about ``chunk_size`` examples, or ``x`` is a data
    loader over a map-style dataset, read in this process in its own batches. Inputs are moved to the model's device
    chunk by chunk. ``norm_mode`` says whether the copy is in training mode (BatchNorm normalises by the statistics of
    each chunk) or in evaluation mode (by its running statistics); ``dtype`` computes in another precision. ``w`` holds
    the model's own parameters.

    Raises ObjectiveError when no parameter is trained, or when the same examples at the same parameters give two
    different losses: dropout, random augmentation, a loader that shuffles.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor | DataLoader[Any],
        y: Tensor | None = None,
        *,
        loss: Loss = F.cross_entropy,
        norm_mode: NormMode = "batch",
        chunk_size: int = 100,
        dtype: torch.dtype | None = None,
    ) -> None:
        if norm_mode not in ("batch", "running"):
            raise ValueError(f"norm_mode must be 'batch' or 'running', got {norm_mode!r}")
        self.norm_mode: NormMode = norm_mode
        self.loss = loss
        self._given = (model, x, y, chunk_size)
        self.model = copy.deepcopy(model).train(norm_mode == "batch")
        if dtype is not None:
            self.model.to(dtype)
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if not named:
            raise ObjectiveError(
                "the model has no parameter that requires a gradient: nothing is trained, so nothing can be measured; "
                "set requires_grad on what is"
            )
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self._sizes = [p.numel() for p in self.parameters]
        self._shapes = [p.shape for p in self.parameters]
        self.w = flatten([p.detach() for p in self.parameters])
        place = (self.parameters[0].device, dtype)
        if isinstance(x, Tensor):
            if y is None:
                raise ValueError("targets y are missing: give tensors x and y, or a data loader alone")
            self._examples: _Tensors | _Loader = _Tensors(x, y, chunk_size, place)
        else:
            if y is not None:
                raise ValueError("a data loader holds the targets already: give x alone, or tensors x and y")
            self._examples = _Loader(x, place)
        self.n, self.chunk_size = self._examples.n, self._examples.chunk_size
        self._check_fixed()

    def _check_fixed(self) -> None:
        """Raise ObjectiveError when the first examples' loss changes from one evaluation to the next."""
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
                raise ObjectiveError(
                    f"dropout is on in {name or 'the model'} (p = {module.p:g}), so the loss is drawn anew each time; "
                    f"measure the evaluated function by norm_mode='running', or set p to 0"
                )
        device = self.parameters[0].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            first, second = (self.loss(self.model(inputs), targets) for inputs, targets in self._first_twice())
        if first.ndim or first.shape != second.shape:
            raise ObjectiveError(f"the loss must be one number, the batch's mean, got shape {tuple(first.shape)}")
        gap = abs(float(first) - float(second))
        if gap > 100 * torch.finfo(first.dtype).eps * abs(float(first)):
            raise ObjectiveError(
                f"the same examples at the same parameters gave the losses {float(first):.6g} and {float(second):.6g}: "
                f"something in the model, the loss or the data set is random; switch it off or fix its seed"
            )

    def _first_twice(self) -> Iterator[Piece]:
        for _ in range(2):
            yield next(iter(self._examples.pieces()))

    def in_double(self) -> "Objective":
        """The same objective computed in float64, at the parameters the model has now."""
        model, x, y, chunk_size = self._given
        return Objective(
            model, x, y, loss=self.loss, norm_mode=self.norm_mode, chunk_size=chunk_size, dtype=torch.float64
        )

    def split(self, w: Tensor) -> Sequence[Tensor]:
        """Cut a flat vector into the parameters' parts, in their order."""
        return torch.split(w, self._sizes)

    def _move_to(self, w: Tensor) -> None:
        with torch.no_grad():
            for parameter, values in zip(self.parameters, self.split(w), strict=True):
                parameter.copy_(values.view(parameter.shape))

    def gradient(self, w: Tensor, *, reordered: bool = False) -> Tensor:
        """Gradient (p,) of f at w; ``reordered`` sums the same numbers in another order."""
        return self.loss_and_gradient(w, reordered=reordered)[1]

    def loss_and_gradient(self, w: Tensor, *, reordered: bool = False) -> tuple[float, Tensor]:
        """f(w) and its gradient (p,)."""
        self._move_to(w)
        pieces = self._examples.pieces(backwards=reordered)
        pieces = _reordered(pieces) if reordered else pieces
        value, gradients = loss_and_gradient(self.model, self.parameters, pieces, self.n, self.loss)
        return float(value), flatten(gradients)

    def minibatch_gradient(self, w: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
        """Gradient (p,) at w of the mean loss over ``batch_size`` examples drawn with replacement."""
        self._move_to(w)
        (batch,) = draw_batches(self.n, updates=1, batch_size=batch_size, generator=generator)
        piece = self._examples.draw(batch)
        return flatten(loss_and_gradient(self.model, self.parameters, [piece], batch_size, self.loss)[1])

    def hessian_product(self, w: Tensor, v: Tensor) -> Tensor:
        """H v (p,), H the Hessian of f at w, by differentiating grad f . v."""
        self._move_to(w)
        total = [torch.zeros_like(p) for p in self.parameters]
        parts = [part.view(shape) for part, shape in zip(self.split(v), self._shapes, strict=True)]
        for inputs, targets in self._examples.pieces():
            objective = self.loss(self.model(inputs), targets) * (len(targets) / self.n)
            gradients = torch.autograd.grad(objective, self.parameters, create_graph=True, materialize_grads=True)
            slope = torch.stack([(g * part).sum() for g, part in zip(gradients, parts, strict=True)]).sum()
            if slope.requires_grad:  # a loss without curvature has a gradient without history
                products = torch.autograd.grad(slope, self.parameters, materialize_grads=True)
                for accumulated, product in zip(total, products, strict=True):
                    accumulated.add_(product)
        return flatten(total)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors into one flat copy, each in its logical (row-major) order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def loss_and_gradient(
    model: nn.Module, parameters: Sequence[Tensor], pieces: Iterable[Piece], n: int, loss: Loss
) -> tuple[Tensor, list[Tensor]]:
    """Mean loss over n examples, given in pieces, and its gradients; each piece weighs as much as it has examples."""
    if not parameters:
        raise ObjectiveError("the model has no parameter that requires a gradient")
    value: Tensor | None = None
    total = [torch.zeros_like(p) for p in parameters]
    for inputs, targets in pieces:
        objective = loss(model(inputs), targets) * (len(targets) / n)
        gradients = torch.autograd.grad(objective, parameters, materialize_grads=True)
        for accumulated, part in zip(total, gradients, strict=True):
            accumulated.add_(part)
        value = objective.detach() if value is None else value + objective.detach()
    assert value is not None, "there are no examples"
    return value, total


Place = tuple[torch.device, torch.dtype | None]


class _Tensors:
    """Examples held in two tensors."""

    def __init__(self, x: Tensor, y: Tensor, chunk_size: int, place: Place) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        check_examples(x, y)
        self.x, self.y, self.chunk_size, self.n, self._place = x, y, chunk_size, len(x), place

    def pieces(self, *, backwards: bool = False) -> Iterator[Piece]:
        """All examples in chunks, first to last or last to first."""
        parts = list(chunks(self.x, self.y, self.chunk_size))  # views
        for inputs, targets in reversed(parts) if backwards else parts:
            yield _placed(inputs, *self._place), _placed(targets, *self._place)

    def draw(self, batch: Tensor) -> Piece:
        """Some examples."""
        inputs = self.x.index_select(0, batch.to(self.x.device))
        targets = self.y.index_select(0, batch.to(self.y.device))
        return _placed(inputs, *self._place), _placed(targets, *self._place)


class _Loader:
    """Examples of a data loader: its dataset, its batches, its way of collating, read without its workers."""

    def __init__(self, loader: DataLoader[Any], place: Place) -> None:
        dataset = loader.dataset
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or loader.batch_size is None:
            raise ObjectiveError("the data loader must batch a dataset with indices and a length; wrap the data in one")
        if not isinstance(loader.sampler, SequentialSampler):
            raise ObjectiveError(
                f"the data loader draws its examples by {type(loader.sampler).__name__}, so two gradients would not be "
                f"over the same batches; give one with shuffle=False"
            )
        if loader.drop_last and len(dataset) % loader.batch_size:
            raise ObjectiveError(
                f"the data loader drops the last {len(dataset) % loader.batch_size} of {len(dataset)} examples; "
                f"give one with drop_last=False"
            )
        self._dataset, self._collate, self._place = dataset, loader.collate_fn, place
        self.n, self.chunk_size = len(dataset), loader.batch_size
        if self.n == 0:
            raise ValueError("the data loader has no examples")

    def pieces(self, *, backwards: bool = False) -> Iterator[Piece]:
        """All examples in batches whose lengths differ by at most one, first to last or last to first."""
        parts = torch.arange(self.n).tensor_split(math.ceil(self.n / self.chunk_size))
        for indices in reversed(parts) if backwards else parts:
            yield self.draw(indices)

    def draw(self, batch: Tensor) -> Piece:
        """Some examples."""
        inputs, targets = self._collate([self._dataset[index] for index in batch.tolist()])
        return _placed(inputs, *self._place), _placed(targets, *self._place)


def _placed(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Inputs or targets on a device, floating-point ones in a precision."""
    return _mapped(value, lambda each: each.to(device, dtype if each.is_floating_point() else None))


def _reordered(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces with their examples in another order each."""
    generator = torch.Generator().manual_seed(0)
    for inputs, targets in pieces:
        order = torch.randperm(len(targets), generator=generator).to(targets.device)
        yield _mapped(inputs, partial(torch.index_select, dim=0, index=order)), targets.index_select(0, order)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a batch: alone, or inside lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change) for each in value]
    return value

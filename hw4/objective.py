"""A model's mean loss over a data set as a function of its flat parameter vector, and its first two derivatives."""

import contextlib
import copy
import functools
import inspect
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Dataset

from hw4.borrowed import BATCH_STATISTICS, Borrowed, Randomness, counts, lent, reachable
from hw4.errors import ObjectiveError, first_line
from hw4.examples import Batch, of_anything
from hw4.memory import PIECE, Watch, extent, fingerprint
from hw4.specs import NormMode
from hw4.training import Loss, draw_batches

__all__ = ["Forward", "Objective", "ObjectiveError", "flatten"]

Forward = Callable[[nn.Module, Batch], Any]
"""A model and a batch as the data loader gives it to the batch's loss: its mean over the examples, or (sum, weight)."""

MEASURING = threading.RLock()
"""Held while a model's parameters are replaced by ours, which another thread would take for the user's."""

Called = TypeVar("Called", bound=Callable[..., Any])


def one_at_a_time(work: Called) -> Called:
    """Let threads do something one after the other."""

    @functools.wraps(work)
    def done(*arguments: Any, **settings: Any) -> Any:
        with MEASURING:
            return work(*arguments, **settings)

    return cast(Called, done)


class Objective:
    """f(w) = mean loss over all examples, for a model at flat parameters w (p,).

    ``x`` (n, ...) and ``y`` (n, ...) are tensors, or dicts, lists and tuples of them, cut into chunks of about
    ``chunk_size`` examples; or ``x`` is a data loader over a map-style dataset, read in this process in its own
    batches, or such a dataset, read in batches of ``chunk_size``. Batches move to the model's device one by one.

    A batch is a pair (inputs, targets), and its loss ``loss(model(inputs), targets)``; for any other way of feeding a
    model give ``forward(model, batch)`` instead. Either returns the mean over the batch's examples, or a pair: the sum
    and the weight by which the sum over all examples is divided (class weights, tokens that are not padding).

    ``norm_mode`` is "batch" (the function that is trained, every layer in training mode: BatchNorm normalises by the
    statistics of each chunk), "running" (the one that is evaluated, by running statistics) or "as is" (every layer in
    the mode it is in): three different functions; ``dtype`` computes in another precision.
    ``w`` holds the model's own parameters. The model, its buffers, modes and hooks, the random generators and the data
    loader are left as they were.

    Raises ObjectiveError, with the way out, when what would come out is no such function: nothing is trained; the loss
    changes from one evaluation to the next (dropout, augmentation, a loader that shuffles, layers with a memory); it is
    no mean over the examples (class weights, ignored targets, sums, losses of a batch as a whole), unless one chunk
    holds them all; or it depends on tensors outside the model.
    """

    @one_at_a_time
    def __init__(
        self,
        model: nn.Module,
        x: Any,
        y: Any = None,
        *,
        loss: Loss = F.cross_entropy,
        forward: Forward | None = None,
        norm_mode: NormMode = "batch",
        chunk_size: int = 100,
        dtype: torch.dtype | None = None,
    ) -> None:
        _refuse_settings(model, norm_mode, dtype, loss, forward)
        self.norm_mode: NormMode = norm_mode
        self.loss, self.forward = loss, forward
        self._model = model
        found = list(reachable([loss, forward]))
        self._beside = [each for each in found if isinstance(each, BESIDE)]
        self._borrow(dtype)
        _refuse_arrays([*found, *reachable([model])], self.names, self._borrowed.originals)
        norms = [each for each in model.modules() if isinstance(each, BATCH_STATISTICS)]
        norms = [each for each in norms if norm_mode == "running" or (norm_mode == "as is" and not each.training)]
        self._evaluated = [
            b for each in norms for b in (each.running_mean, each.running_var) if b is not None and extent(b)
        ]
        self._sums = self._originals_sums()
        data = [x.dataset, x.collate_fn] if isinstance(x, DataLoader) else [x]
        self._holders = [*self._borrowed.modules, loss, forward, *data]
        with self._borrowed.inside():
            inner = [dict(vars(module)) for module in self._borrowed.modules]
        self._random = Randomness([*self._holders, *inner])
        with self._random.watched():
            self._examples = of_anything(x, y, chunk_size, (self.parameters[0].device, dtype))
        self._random.moved.clear()  # a sampler may draw; its plan was compared with a second one
        self.n, self.chunk_size = self._examples.n, self._examples.chunk_size
        self._outside, self._coarsest = False, 0.0
        with self._computing():
            self._counts = counts(self._holders)
        self._require_no_identities(found)
        self._seen = self._check_mean()
        if dtype == torch.float64:
            self.require_double()

    def _borrow(self, dtype: torch.dtype | None) -> None:
        """Begin with the model as it is, in this precision."""
        self._dtype = dtype
        self._borrowed = Borrowed(self._model, self._beside, self.norm_mode, dtype, held=[self.loss, self.forward])
        self._moved_loss = _in_precision(self.loss, dtype)
        self.names, self.parameters = self._borrowed.names, self._borrowed.leaves
        self._sizes = [p.numel() for p in self.parameters]
        self._like = _wide(flatten([p.detach().reshape(-1)[:0] for p in self.parameters]))
        self._at_start, self._twice = True, False
        self._low = any(p.element_size() < SINGLE_BYTES for p in self.parameters)
        self._weights: list[float | None] | None = None
        self._seen = {}
        self._first_pass: list[float] | None = None

    # Evaluating --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _computing(self, borrowed: Borrowed | None = None) -> Iterator[None]:
        """Everything that a forward and a backward pass need, whatever surrounds the call, and nothing left behind."""
        with MEASURING, contextlib.ExitStack() as afterwards:
            afterwards.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
            for each in self._beside:
                if isinstance(each, torch.optim.Optimizer):  # which makes entries of whatever is looked up
                    afterwards.callback(each.state.update, dict(each.state))
                    afterwards.callback(each.state.clear)
                    afterwards.callback(each.register_step_pre_hook(_refuse_step).remove)
            for p in self._borrowed.originals:  # whose gradients forward= may set to zero
                afterwards.callback(setattr, p, "grad", p.grad)
                p.grad = None
            with torch.inference_mode(False), torch.enable_grad(), self._random.watched():
                torch.set_autocast_cache_enabled(False)  # weights move in place: a cached cast would be a stale one
                torch.clear_autocast_cache()
                with (borrowed or self._borrowed).inside(), self._without_cudnn():
                    yield

    def _without_cudnn(self) -> contextlib.AbstractContextManager[Any]:
        """On a GPU torch's own recurrent layers, for cuDNN's have no gradient in evaluation mode, and no second one."""
        recurrent = any(isinstance(each, nn.RNNBase) for each in self._borrowed.modules)
        if not recurrent or not self.parameters[0].is_cuda:
            return contextlib.nullcontext()
        ways = torch.backends.cudnn
        return ways.flags(
            enabled=False, benchmark=ways.benchmark, deterministic=ways.deterministic, allow_tf32=ways.allow_tf32
        )

    def _batch_loss(self, batch: Batch) -> tuple[Tensor, float | None]:
        """The loss of a batch, with its weight where the loss gives one."""
        if self.forward is not None:
            with _named_refusals(self._dtype):
                found = self._given_forward(batch)
        elif isinstance(batch, list | tuple) and len(batch) == 2:
            with _named_refusals(self._dtype):
                found = self._loss_of_pair(*batch)
        else:
            what = f"{len(batch)} parts" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
            raise ObjectiveError(
                f"a batch is {what} and not a pair of inputs and targets; say how it is fed by "
                f"forward=lambda model, batch: ..., which returns the batch's loss"
            )
        weight = None
        if isinstance(found, float | int):
            raise ObjectiveError(DETACHED)
        if isinstance(found, tuple | list) and len(found) == 2:
            found, weight = found[0], _number(found[1])
        if not isinstance(found, Tensor) or found.ndim or not found.is_floating_point():
            what = f"shape {tuple(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise ObjectiveError(
                f"the loss must be one real number, the batch's mean, or a pair (sum, weight), each a tensor of no "
                f"dimensions, got {what}"
            )
        return found, weight

    def _given_forward(self, batch: Batch) -> Any:
        """What the user's forward= gives; raises ObjectiveError where it takes its arguments for others."""
        assert self.forward is not None
        try:
            return self.forward(self._model, batch)
        except NOT_FED as error:
            inside = error.__traceback__ and error.__traceback__.tb_next
            if isinstance(error, ObjectiveError) or not inside or inside.tb_next:  # it is further in
                raise
            raise ObjectiveError(
                f"forward(model, batch) failed ({type(error).__name__}: {first_line(error)}), which is given the model "
                f"and then a batch, here a {type(batch).__name__}; a training_step is given by forward=lambda model, "
                f"batch: model.training_step(batch, 0)"
            ) from error

    def _loss_of_pair(self, inputs: Any, targets: Any) -> Any:
        """The loss of inputs and targets; raises ObjectiveError where either is given another way."""
        try:
            outputs = self._model(inputs)
        except NOT_FED as error:
            if isinstance(inputs, Tensor) and isinstance(error, IndexError):  # of too few examples, say
                raise
            raise ObjectiveError(
                f"the model cannot be given a {type(inputs).__name__} as its one input ({first_line(error)}), unless "
                f"that is a fault of its own; say how it is fed by forward=lambda model, batch: "
                f"loss(model(*batch[0]), batch[1]), or model(**batch[0])"
            ) from error
        try:
            return self._moved_loss(outputs, targets)
        except NOT_FED as error:
            if isinstance(outputs, Tensor):
                raise
            raise ObjectiveError(
                f"the loss cannot be given the {type(outputs).__name__} that the model returns ({first_line(error)}); "
                f"say which part is meant by forward=lambda model, batch: loss(model(batch[0])[0], batch[1])"
            ) from error

    def _detached_loss(self, indices: Sequence[int], watch: Watch | None = None) -> tuple[Tensor, float | None]:
        """The loss of these examples and its weight, without what derivatives would need."""
        batch = self._examples.take(indices)
        with watch or contextlib.nullcontext():
            value, weight = self._batch_loss(batch)
        return value.detach(), weight

    def _of_any_number(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Explain an error that comes for this number of examples and not for a whole batch."""
        return _in_a_sentence(
            f"the loss of {count} examples",
            f"though that of a whole batch can; let the model and the loss take any number of examples, or let one "
            f"batch hold all (chunk_size={self.n}; a data loader's own batch_size) and give the step as update=",
        )

    def _scaled(self, value: Tensor, weight: float | None, count: int) -> tuple[Tensor, float]:
        """A batch's part in the mean over all examples: what is differentiated, and a factor of it.

        In low precision that is the batch's mean, for gradients of a small part of it would be lost in rounding. Where
        functions have a backward of their own the whole factor is taken afterwards: they may not heed what is given.
        """
        if weight is None:
            share = count / self.n
            return (value, share) if self._outside or self._low else (value * share, 1.0)
        total = self._total_weight()
        if self._outside:
            return value, 1 / total
        return (value / (weight or 1.0), (weight or 1.0) / total) if self._low else (value / total, 1.0)

    def _share(self, value: Tensor, weight: float | None, count: int) -> float:
        """A batch's part in the mean over all examples, as a number."""
        objective, factor = self._scaled(value, weight, count)
        return float(_wide(objective.detach()) * factor)

    def _total_weight(self) -> float:
        """The weight of all examples together, where the loss gives weights."""
        if self._weights is None:
            self._weights = [self._batch_loss(batch)[1] for batch, _ in self._examples.pieces()]
        found = math.fsum(each for each in self._weights if each is not None)
        if not 0 < found < math.inf:
            raise ObjectiveError(f"the weights of all batches must have a finite sum above 0, got {found:g}")
        return found

    def _require_weight(self, place: int, weight: float | None) -> None:
        """Raise ObjectiveError when a batch's weight is another than at first, as one that outputs have a part in."""
        then = self._weights[place] if self._weights is not None else None
        if weight is None or then is None or abs(weight - then) <= SAME_WEIGHT * abs(then):
            return
        raise ObjectiveError(
            f"the weight of a batch is {weight:.6g} where it was {then:.6g} at other parameters or another time: it "
            f"depends on the outputs (examples chosen by the model's confidence), and no derivative would see that; "
            f"weigh by the examples alone"
        )

    # Checking ----------------------------------------------------------------------------------------------------

    def _check_mean(self, *, aside: bool = False) -> dict[int, float]:
        """Raise ObjectiveError unless sampled batch losses depend on the parameters alone and are means over examples.

        Looked at are the first and the last batch, whose parts in the mean are returned, and some drawn from all over
        the data: what is no mean shows where examples differ, which neighbours may not. The first two are looked at
        again in the first pass, which looks at those that stand out, too. What rounding leaves of a loss at its minimum
        need be no mean: then the loss a small step ``aside`` is.
        """
        plan, known, seen = self._examples.plan, {}, dict[int, float]()
        size = min(self.n, max(FEW, *map(len, plan)))
        try:
            with self._computing():
                for place in sorted({0, len(plan) - 1}):
                    value, weight = self._unaliased_loss(plan[place])
                    seen[place] = self._share(value, weight, len(plan[place]))
                    if not math.isfinite(seen[place]):
                        self._require_finite_examples()  # else a diverged model; whoever measures it says so
                    known[place] = value.detach(), weight
                    del value  # its activations go before the parts' come
                if len(plan) > 1 or known[0][1] is not None:
                    exact = self._check_exactly(self._samples(min(self.n, FEW))[:2])
                    for place, each in known.items():
                        self._check_parts(plan[place], exact, each)
                if len(plan) > 1:
                    for sample in self._samples(size):
                        self._check_parts(sample, exact)
        except ObjectiveError:
            self._require_fixed("some")  # the cause, where that is it
            if aside or not self._is_mean_aside(seen.get(0, math.nan)):
                raise
        self._require_fixed("some")
        if not aside:
            self._require_gradients_unread(seen[0])
        return seen

    def _is_mean_aside(self, here: float) -> bool:
        """Whether, a small step away, the loss is a mean over examples and much larger than ``here``."""
        try:
            self._step_aside()
            return abs(here) < RESIDUE * abs(self._check_mean(aside=True)[0])
        except Exception:  # of a model that looks at its weights, say
            return False
        finally:
            self.move_to()

    @torch.no_grad()
    def _step_aside(self) -> None:
        """Move every parameter at random, by a hundredth of its size."""
        generator, self._at_start = torch.Generator(device="cpu").manual_seed(0), False
        padding = [(row, row.clone()) for row in self._borrowed.padding()]
        for p in self.parameters:
            pieces = torch.split(p, -(-PIECE * len(p) // (p.numel() or 1)) or 1) if p.ndim else [p]  # to spare memory
            size = math.hypot(*(float(torch.linalg.vector_norm(each, dtype=torch.float64)) for each in pieces))
            for each in pieces:
                drawn = torch.randn(each.shape, generator=generator, device="cpu").to(each)
                each.add_(drawn, alpha=0.01 * (size / math.sqrt(p.numel()) or 1.0))
        for row, then in padding:
            row.copy_(then)

    def _samples(self, size: int) -> list[list[int]]:
        """Samples of so many examples from all over the data: LOOKED_AT in all, and two at least, where there are.

        They are drawn, by a seed of their own: what lies at even distances may be alike, as data in an order are.
        """
        count = max(1, min(max(2, -(-LOOKED_AT // size)), self.n // size))
        if count * size <= FEW * LOOKED_AT:
            drawn = random.Random(0).sample(range(self.n), count * size)
        else:  # quicker for many
            drawn = torch.randperm(self.n, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu")[
                : count * size
            ].tolist()
        return [sorted(drawn[place::count]) for place in range(count)]

    def _check_exactly(self, samples: Sequence[Sequence[int]]) -> bool:
        """Whether these examples' losses were computed in float64, which shows even a small term that is no mean.

        Raises ObjectiveError when they are not the means of their parts'.
        """
        double, lowest = self, Watch()
        try:
            if self.dtype != torch.float64:
                if any(hasattr(each, "_orig_mod") or each._compiled_call_impl for each in self._borrowed.modules):
                    return False  # to compile it once more would take longer than everything else
                held = [
                    t for each in self._borrowed.modules for t in (*each._parameters.values(), *each._buffers.values())
                ]
                own = {id(t): t for t in held if t is not None and t.is_floating_point()}.values()
                if 8 * sum(t.numel() for t in own) > 2 * sum(t.nbytes for t in own) + LARGE:
                    return False
                double = self.in_double()
            with double._computing():
                found = [double._in_parts(indices, watch=lowest) for indices in samples]
        except Exception:  # it computes in its own precision alone
            return False
        if lowest.eps > SINGLE:
            return False
        exact = lowest.eps < SINGLE
        with double._computing():
            for indices, losses in zip(samples, found, strict=True):
                double._require_additive(indices, losses, EXACT if exact else 64 * SINGLE)
                loss = float(losses[0][0])
                if exact and math.isfinite(loss):
                    left, largest = double._slopes_left(indices, mean=losses[0][1] is None)
                    if math.isfinite(left) and left > SAME_SLOPE * largest > SAME_SLOPE * NO_SLOPE * abs(loss):
                        raise ObjectiveError(_no_mean(len(indices), loss, None, self.n))
        if exact and self._at_start:
            double._check_aside(samples[0])
            if double is self:  # another is done with
                self.move_to()
        return exact

    def _check_aside(self, indices: Sequence[int]) -> None:
        """Raise ObjectiveError when, a small step away, these examples' loss is not the mean of their parts'.

        A layer that begins with zeros hides what it will do.
        """
        self._step_aside()
        with self._computing():
            try:
                found = self._in_parts(indices)
                value = self._batch_loss(self._examples.take(indices))[0]
            except Exception:  # of a model that looks at its weights, say
                return
            if not self._borrowed.padding() and any(map(_pads, _nodes(value))):
                return  # padding has been moved, which training never does
            self._require_additive(indices, found, EXACT)

    def _unaliased_loss(self, indices: Sequence[int]) -> tuple[Tensor, float | None]:
        """The loss of these examples, once; raises ObjectiveError when it rests on the user's own trained weights."""
        noted = {name: tensor for name, (tensor, _) in self._borrowed.noted().items()}
        reads = Watch([*self.names, *noted], [*self._borrowed.originals, *noted.values()])
        batch = self._examples.take(indices)  # of which the model may have kept a view
        with self._untouched():
            with reads, _in_a_sentence(f"the loss of a batch of {len(indices)}", MISFIT):
                value, weight = self._batch_loss(batch)
            self._require_owned(value, indices)
        if weight is not None and self.n == 1:
            raise ObjectiveError(UNTOLD)
        self._coarsest = max(self._coarsest, reads.trained_eps)
        now = self._borrowed.noted()
        for name in reads.read:
            if name not in noted or now[name][1]:  # a constant may be read by any way
                raise ObjectiveError(_aliased(name.partition(" ")[2]))
        return value, weight

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """Raise ObjectiveError when the trained weights are others after what is computed inside, or are frozen."""
        before = [fingerprint(p) for p in self.parameters]
        there = {id(p) for _, p in self._model.named_parameters()}
        yield
        if extra := [name for name, p in self._model.named_parameters() if id(p) not in there]:
            raise ObjectiveError(
                f"the model makes the parameter {extra[0]}, or puts another in its place, in its forward pass or its "
                f"loss, which no optimiser knows; run the model once on a batch, or compute with a changed copy"
            )
        for name, parameter, then in zip(self.names, self.parameters, before, strict=True):
            if fingerprint(parameter) != then:
                raise ObjectiveError(
                    f"the model changes its trained weights ({name}) in its forward pass or its loss, as "
                    f"Embedding(max_norm=...) and clamped or normalised weights do, so no gradient belongs to them; "
                    f"do it after the optimiser's step, or compute with a changed copy"
                )
            if not parameter.requires_grad:
                raise ObjectiveError(
                    f"the model sets requires_grad of its trained weights ({name}) to False in its forward pass; set "
                    f"it beforehand"
                )
        self._borrowed.require_separate_buffers()

    def _require_no_identities(self, held: Sequence[Any]) -> None:
        """Raise ObjectiveError when a loss tells the user's own parameters apart, which ours take the place of.

        Where the loss holds parameters or anything their ids, the first batch's gradients by theirs and by ours must
        agree.
        """
        by_id = {n for p in self._borrowed.originals for n in (id(p), p.data_ptr()) if n}
        numbers = [each for each in (*held, *reachable([self._model])) if isinstance(each, int)]
        if not by_id & {*map(id, held), *numbers}:
            return
        if self._dtype is not None:  # in which theirs are not
            precisions = {p.dtype for p in self._borrowed.originals}
            own_precision = copy.copy(self)
            own_precision._examples = self._examples.in_precision(precisions.pop() if len(precisions) == 1 else None)
            own_precision._borrow(None)
            own_precision._require_no_identities(held)
            return
        holders = [self.loss, self.forward]
        theirs = Borrowed(self._model, self._beside, self.norm_mode, None, theirs=True, held=holders)
        try:
            own: Tensor | None = self._first_gradient(self._borrowed)
        except ObjectiveError:
            raise
        except Exception:  # whose cause is that, where theirs can be computed
            own = None
        try:
            with lent(self._borrowed.originals, self._borrowed.modules):
                ours = self._first_gradient(theirs)
        finally:
            with torch.inference_mode(False), torch.no_grad():
                for p, then in zip(self._borrowed.originals, self.parameters, strict=True):
                    if fingerprint(p) != fingerprint(then):
                        p.data.copy_(then)
        close = self._tolerance(100)
        if own is None or not torch.allclose(ours, own, rtol=0, atol=close * float(own.abs().max()), equal_nan=True):
            raise ObjectiveError(IDENTITY)

    def _first_gradient(self, borrowed: Borrowed) -> Tensor:
        """The gradient of the first batch's loss by these parameters."""
        with self._computing(borrowed), self._untouched(), _named_refusals(self._dtype):
            value = self._batch_loss(self._examples.take(self._examples.plan[0]))[0]
            if borrowed is self._borrowed:
                self._require_owned(value, self._examples.plan[0])
            return _slope(value, borrowed.leaves)

    def _in_parts(
        self, indices: Sequence[int], known: tuple[Tensor, float | None] | None = None, watch: Watch | None = None
    ) -> list[tuple[Tensor, float | None]]:
        """Loss and weight of a batch (``known`` where computed) and of its parts, BatchNorm's statistics fixed."""
        with self._borrowed.without_batch_statistics():
            found = [known] if known and not self._borrowed.looks_at_batches else []
            for part in [indices, *_parts(indices)][len(found) :]:
                with self._of_any_number(len(part)):
                    found.append(self._detached_loss(part, watch))
            return found

    def _check_parts(
        self, indices: Sequence[int], exact: bool, known: tuple[Tensor, float | None] | None = None
    ) -> None:
        """Raise ObjectiveError unless a batch's loss, and if need be its gradient, is the mean of its parts'."""
        if len(indices) < 2:
            return
        found = self._in_parts(indices, known)
        try:
            self._require_additive(indices, found, self._tolerance(1000, found[0][0]))
        except ObjectiveError:
            if not self._only_rounded(indices, found):
                raise
        losses = [float(each) for each, _ in found]
        alike = max(losses) - min(losses) <= ALIKE * max(map(abs, losses))  # a large constant may hide what is no mean
        if not exact and found[0][1] is None and alike:
            left, largest = self._slopes_left(indices)
            low = max(torch.finfo(p.dtype).eps for p in self.parameters) > 1e-5
            if left > (0.2 if low else 0.02) * largest and largest > NO_SLOPE * abs(losses[0]):
                raise ObjectiveError(_no_mean(len(indices), losses[0], None, self.n))

    def _only_rounded(self, indices: Sequence[int], found: Sequence[tuple[Tensor, float | None]]) -> bool:
        """Whether only rounding differs: these losses come again, and in float64 the batch agrees with its parts."""
        again = self._in_parts(indices)
        if any(float(a) != float(b) for (a, _), (b, _) in zip(found, again, strict=True)):
            return False
        with contextlib.suppress(ObjectiveError):
            return self._check_exactly([indices])
        return False

    def _require_additive(
        self, indices: Sequence[int], found: Sequence[tuple[Tensor, float | None]], tolerance: float
    ) -> None:
        """Raise ObjectiveError unless a batch's loss and weight are those of its parts, put together."""
        losses, weights = [float(each) for each, _ in found], [weight for _, weight in found]
        if len(indices) < 2 or not math.isfinite(losses[0]):
            return
        if not all(map(math.isfinite, losses)):  # of a mean, every part has a value
            raise ObjectiveError(_no_mean(len(indices), losses[0], math.nan, self.n))
        if len({weight is None for weight in weights}) > 1:
            raise ObjectiveError(
                "the loss gives a pair (sum, weight) for some batches and a number for others; give one or the other"
            )
        if weights[0] is not None:
            self._require_sums(losses, [each or 0.0 for each in weights], tolerance)
            return
        sizes = map(len, _parts(indices))
        expected = sum(size * mean for size, mean in zip(sizes, losses[1:], strict=True)) / len(indices)
        if abs(losses[0] - expected) > tolerance * max(map(abs, losses)):
            for then, (now, _) in zip(losses, self._in_parts(indices), strict=True):
                if float(now) != then:
                    changed = self._borrowed.changed_buffers()
                    raise ObjectiveError(_changing(then, float(now), changed, self.norm_mode))
            raise ObjectiveError(_no_mean(len(indices), losses[0], expected, self.n))

    def _slopes_left(self, whole: Sequence[int], *, mean: bool = True) -> tuple[float, float]:
        """The norm of a batch's gradient less its parts' put together, and the largest norm on the way there.

        Not nothing is left where a large constant hides what is no mean, or where a term is divided by its own detached
        value. The smallest parameters tell, and need no memory.
        """
        ordered = sorted(self.parameters, key=Tensor.numel)
        enough = sum(size <= SMALLEST for size in itertools.accumulate(map(Tensor.numel, ordered)))
        few = ordered[: max(1, enough)]
        total, sizes = [_wide(torch.zeros_like(p)) for p in few], [0.0]
        with self._borrowed.without_batch_statistics(), _named_refusals():
            for indices, sign in ((whole, 1.0), *((part, -1.0) for part in _parts(whole))):
                loss = self._batch_loss(self._examples.take(indices))[0]
                slopes = torch.autograd.grad(loss, few, allow_unused=True) if loss.requires_grad else [None] * len(few)
                for part, slope in zip(total, slopes, strict=True):
                    if slope is not None:
                        part.add_(slope, alpha=sign * (len(indices) / len(whole) if mean else 1.0))
                sizes.append(math.hypot(*(float(part.norm()) for part in total)))
        return sizes[-1], max(sizes)

    def _tolerance(self, roundings: int, *losses: Tensor) -> float:
        """How far, relatively, two ways to sum one loss may differ by rounding: few of a low precision's roundings.

        A loss in a wider precision than the parameters sums outputs that low ones have rounded alike in every batch.
        """
        own = max(torch.finfo(p.dtype).eps for p in self.parameters)
        eps = max((torch.finfo(each.dtype).eps for each in losses), default=own)
        if eps < 1e-5:
            return max(roundings * eps, own / 64 if own > 1e-5 else roundings * own)
        return 8 * eps

    def _require_sums(self, sums: Sequence[float], weights: Sequence[float], tolerance: float) -> None:
        """Raise ObjectiveError unless sum and weight of a batch are those of its parts added."""
        for what, (whole, *parts) in (("sum", sums), ("weight", weights)):
            if abs(whole - math.fsum(parts)) > tolerance * max(map(abs, (whole, *parts))):
                raise ObjectiveError(
                    f"the loss gives pairs whose first is taken for the sum over the batch and whose second for its "
                    f"weight, but the {what} of a batch is {whole:.9g} and that of its parts {math.fsum(parts):.9g}; "
                    f"return the mean alone, or (sum, weight), both in the precision that is computed in"
                )

    def _require_owned(self, value: Tensor, indices: Sequence[int]) -> None:
        """Raise ObjectiveError when the loss of these examples depends on a tensor that is trained and is not moved.

        What is made while it is computed, such as inputs that forces are derivatives with respect to, is another tensor
        when it is computed again.
        """
        for node in _nodes(value):
            if "CheckpointFunction" in node.name():
                raise ObjectiveError(REENTRANT)
            self._low |= node.name().startswith("ToCopyBackward")  # as autocast makes
            self._outside |= hasattr(node, "_forward_cls")  # a torch.autograd.Function's
            if getattr(node, "_saved_scale_grad_by_freq", False):
                raise ObjectiveError(
                    "an embedding divides its gradient by how often an index is in the batch (scale_grad_by_freq=True),"
                    " so that it is another in every chunk and not the loss's; set scale_grad_by_freq to False for the "
                    "measurement"
                )
        ours = {id(p) for p in self.parameters}
        before = {id(leaf) for leaf in _leaves(value)}
        if before <= ours:
            return
        again, _ = self._batch_loss(self._examples.take(indices))
        theirs = {id(p) for p in self._borrowed.originals}
        for leaf in _leaves(again):
            if id(leaf) in theirs:
                raise ObjectiveError(
                    "the loss holds on to a parameter that was taken out of the model beforehand, which cannot be "
                    "moved with it; ask the model for it each time (model.parameters(), model.layer.weight)"
                )
            if id(leaf) in before and id(leaf) not in ours:
                raise ObjectiveError(
                    f"the loss depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient and is no "
                    f"parameter of the model (a loss's own parameter, a second model, or a copy kept elsewhere); make "
                    f"it part of the model, or freeze or detach it; points that the loss itself takes derivatives by "
                    f"are made in forward= (x.detach().requires_grad_())"
                )

    def _require_gradients_unread(self, without: float) -> None:
        """Raise ObjectiveError when the loss reads the gradients that the user's parameters have, which ours have not.

        Seen at the first batch, whose part in the mean is known ``without`` any, beside gradients of ones.
        """
        if all(p.grad is None for p in self._borrowed.originals):
            return
        indices = self._examples.plan[0]
        with self._computing():
            try:
                for p in self.parameters:
                    p.grad = torch.ones((), dtype=p.dtype, device=p.device).expand_as(p)
                now = self._share(*self._detached_loss(indices), len(indices))
            except Exception:  # of a loss that sets them to zero in place, say
                return
            finally:
                for p in self.parameters:
                    p.grad = None
        close = self._tolerance(8) * abs(without)
        if abs(now - without) <= close:
            return
        with self._computing():
            again = self._share(*self._detached_loss(indices), len(indices))
        if abs(again - without) <= close:  # else it remembers something
            raise ObjectiveError(
                "the loss reads its parameters' gradients (.grad), for with others it is another, and none are there "
                "while it is measured; compute what it needs by torch.autograd.grad, or set .grad to None beforehand"
            )

    def _require_finite_examples(self) -> None:
        """Raise ObjectiveError when examples hold what is no number, and the parameters do not."""
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            return
        for batch, _ in self._examples.pieces():
            found = [t for t in reachable([batch], code=False) if isinstance(t, Tensor) and t.is_floating_point()]
            plain = [t for t in found if t.layout == torch.strided and not t.is_nested and t.element_size() > 1]
            if not all(bool(torch.isfinite(t).all()) for t in plain):
                raise ObjectiveError(
                    "the examples hold values that are not finite, so no loss has a value; clean the data"
                )

    def _require_fixed(self, how_many: str) -> None:
        """Raise ObjectiveError when random numbers were drawn."""
        if self._random.moved:
            raise ObjectiveError(
                f"random numbers were drawn from {' and '.join(dict.fromkeys(self._random.moved))} while the loss of "
                f"{how_many} examples was computed: something in the model, the loss or the data set is random "
                f"(dropout, layers skipped at random, augmentation); switch it off for the measurement, or draw from a "
                f"generator that is made anew for each example (torch.Generator().manual_seed(i))"
            )

    def _check_pass(self, losses: Sequence[Tensor], total: Tensor) -> None:
        """After a pass over all batches: no random number was drawn, and the first pass' losses are still the same."""
        self._require_fixed("all")
        if bad := sum(not bool(each.isfinite()) for each in losses):
            if self._first_pass is None and self._at_start:  # elsewhere it is the parameters that are not fit for it
                self._require_finite_examples()
            self._require_diverged(total, f"{bad} of {len(losses)} batches")
        if self._first_pass is None and self._at_start:  # where the losses seen so far were computed
            self._first_pass = [float(each) for each in losses]
            parts = {place: self.n / len(self._examples.plan[place]) for place in self._seen}  # of losses, in the mean
            self._require_same((self._first_pass[p] * parts[p], now * parts[p]) for p, now in self._seen.items())
            self._check_outliers()

    def _check_outliers(self) -> None:
        """Raise ObjectiveError unless the batches of the smallest and the largest loss are means of their parts'.

        An example that is rare and weighs more, which no sample holds, makes its batch's loss stand out. A batch that
        is fitted has nothing but rounding left.
        """
        plan, shares = self._examples.plan, self._first_pass or []
        ordered = sorted(range(len(plan)), key=lambda place: shares[place] / len(plan[place]))
        try:
            with self._computing():
                for place in {ordered[0], ordered[-1]} - {0, len(plan) - 1}:  # which were looked at
                    if abs(shares[place]) > RESIDUE * max(map(abs, shares)):
                        self._check_parts(plan[place], exact=False)
        except ObjectiveError:
            self._require_fixed("some")
            if not self._is_mean_aside(shares[0]):
                raise

    def _require_diverged(self, gradient: Tensor, where: str) -> None:
        """Raise ObjectiveError when a gradient is finite though the loss is not, which a diverged model's is not."""
        if torch.isfinite(gradient).all():
            raise ObjectiveError(
                f"the loss of {where} is not finite, but its gradient is, as of a mean over no example "
                f"(ignore_index where no target counts), so parts would be left out; return a pair (sum, weight)"
            )

    def _require_no_memory(self, losses: Sequence[Tensor], batches: Sequence[Sequence[int]]) -> None:
        """Raise ObjectiveError when losses are others at a second time, where something has counted or remembered.

        It is looked for in all batches, from the last to the first: what comes every so many calls comes elsewhere.
        """
        with self._computing():
            if not self._borrowed.changed_buffers() and counts(self._holders) == self._counts:
                return
            again = [float(self._detached_loss(indices)[0]) for indices in reversed(batches)]
        self._require_fixed("all")
        self._require_same(zip(map(float, reversed(losses)), again, strict=True))

    def _require_nothing_kept(self, loss: Tensor) -> None:
        """Raise ObjectiveError when the first batch's loss here is another without what was noted where they began."""
        with self._computing():
            if self._at_start or not self._borrowed.keeps:
                return
            with self._borrowed.as_at_first():
                again, _ = self._detached_loss(self._examples.plan[0])
        if abs(float(again) - float(loss)) > self._tolerance(8) * abs(float(loss)):
            raise ObjectiveError(KEPT)

    def confirm(self) -> None:
        """Raise ObjectiveError unless the model and the first batch's loss are still what they were at first."""
        self._require_untrained()
        if self._first_pass is None:
            return
        self.move_to()
        with self._computing():
            found = self._batch_loss(self._examples.take(self._examples.plan[0]))
            now = self._share(*found, len(self._examples.plan[0]))
        self._require_fixed("all")
        part = self.n / len(self._examples.plan[0])
        self._require_same([(self._first_pass[0] * part, now * part)])

    def _require_same(self, pairs: Iterable[tuple[float, float]]) -> None:
        """Raise ObjectiveError unless batches' losses are now what they were then."""
        changed = self._borrowed.changed_buffers()
        close = 0.0 if changed else self._tolerance(8)
        for then, now in pairs:
            if abs(then - now) > close * abs(then) or math.isnan(then) != math.isnan(now):
                raise ObjectiveError(_changing(then, now, changed, self.norm_mode))

    # Derivatives -------------------------------------------------------------------------------------------------

    @one_at_a_time
    def in_double(self) -> "Objective":
        """The same objective computed in float64, at the parameters the model has now."""
        double = copy.copy(self)
        double._examples, double._coarsest = self._examples.in_precision(torch.float64), 0.0
        double._borrow(torch.float64)
        return double

    def require_double(self) -> None:
        """Raise ObjectiveError when a few examples' loss is rounded to a lower precision than float64 on its way."""
        lowest = Watch()
        with self._computing():
            self._detached_loss(self._samples(min(self.n, FEW))[0], lowest)
        _refuse_rounding(lowest)

    def infinite_parameter(self) -> str:
        """The name of one of the model's own parameters that is not finite everywhere, or ""."""
        pairs = zip(self.names, self._borrowed.originals, strict=True)
        return next((name for name, p in pairs if not bool(torch.isfinite(p).all())), "")

    def require_single(self, what: str) -> None:
        """Raise ObjectiveError when something is computed below float32, whose rounding would be taken for more."""
        if self._coarsest > SINGLE:
            raise ObjectiveError(
                f"the model or the loss computes in a precision below float32 (eps {self._coarsest:.2g}), whose "
                f"rounding {what} would not tell from the function; compute in float64 (dtype=torch.float64, "
                f"noise_floor='float64'), or in float32 without autocast"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The precision of flat vectors: the widest of the parameters', and float32 at least, in which they add up."""
        return self._like.dtype

    @property
    def w(self) -> Tensor:
        """The model's own parameters, flat (p,), in a copy of its own; ObjectiveError when they were trained since."""
        with torch.inference_mode(False):
            return _wide(flatten(list(self._start())))

    def _start(self) -> Iterator[Tensor]:
        """The user's parameters in the dtype of the computation; raises ObjectiveError if they have changed since."""
        self._require_untrained()
        return (own.detach().to(p.dtype) for own, p in zip(self._borrowed.originals, self.parameters, strict=True))

    def _require_untrained(self) -> None:
        """Raise ObjectiveError when the user's parameters have changed since this objective was built."""
        if self._originals_sums() != self._sums:
            raise ObjectiveError(
                "the model's parameters or running statistics are others than when this objective was built; build one "
                "anew after training"
            )
        if changed := self._borrowed.changed_outside():
            raise ObjectiveError(f"{changed} is another than when this objective was built; build one anew")

    def _originals_sums(self) -> list[int]:
        """What tells whether the user's parameters, or what is evaluated by, changed: a copy would be as large."""
        return [fingerprint(p) for p in (*self._borrowed.originals, *self._evaluated)]

    def split(self, w: Tensor) -> Sequence[Tensor]:
        """Cut a flat vector into the parameters' parts, in their order."""
        return torch.split(w, self._sizes)

    def parts(self, update: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
        """A displacement, flat or by name, in the parameters' shapes; raises ValueError when it does not fit them."""
        shapes = {name: p.shape for name, p in zip(self.names, self.parameters, strict=True)}
        given = update.values() if isinstance(update, Mapping) else [update]
        if not all(isinstance(each, Tensor) and not each.is_complex() for each in given):
            raise ValueError(
                f"an update must be of real tensors, got {', '.join(sorted({type(each).__name__ for each in given}))}; "
                f"torch.as_tensor makes them of numbers, and parts of it go in a dict by name or in one flat tensor"
            )
        if isinstance(update, Mapping):
            if wrong := [
                name for name in {**shapes, **update} if getattr(update.get(name), "shape", 0) != shapes.get(name)
            ]:
                raise ValueError(
                    f"an update by name must have a tensor of its shape for each of {', '.join(self.names)}, and no "
                    f"other; it is wrong in {', '.join(n if isinstance(n, str) else type(n).__name__ for n in wrong)}"
                )
            return [update[name].detach().to_dense() for name in self.names]
        if update.shape != (sum(self._sizes),):
            raise ValueError(f"expected a flat update of {sum(self._sizes)} numbers, got shape {tuple(update.shape)}")
        return [part.view(shape) for part, shape in zip(self.split(update.detach()), shapes.values(), strict=True)]

    @torch.no_grad()
    def move_to(self, w: Tensor | None = None) -> None:
        """Put the parameters at w (p,), or back where the model's own are."""
        self._at_start = w is None
        if w is not None and w.shape != (sum(self._sizes),):
            raise ValueError(f"expected a flat vector of {sum(self._sizes)} numbers, got shape {tuple(w.shape)}")
        for parameter, values in zip(self.parameters, self._start() if w is None else self.split(w), strict=True):
            parameter.copy_(values.view(parameter.shape) if w is not None else values)

    @torch.no_grad()
    def move_by(self, update: Tensor | Mapping[str, Tensor]) -> None:
        """Put the parameters an update (p,), flat or by name, away from the model's own, each in its own precision."""
        self._at_start = False
        for parameter, part, start in zip(self.parameters, self.parts(update), self._start(), strict=True):
            parameter.copy_(part.to(self._like) + start)

    @property
    def here(self) -> Tensor:
        """Where the parameters were moved to, flat (p,), in a copy."""
        with torch.inference_mode(False):
            return _wide(flatten([p.detach() for p in self.parameters]))

    def step(self) -> Tensor:
        """How far (p,) the parameters are from the model's own, as rounding left it."""
        found = self.here
        for part, start in zip(self.split(found), self._start(), strict=True):
            part.sub_(start.reshape(-1))
        return found

    def gradient(self, w: Tensor | None = None) -> Tensor:
        """Gradient (p,) of f at w, or at the model's own parameters."""
        return self.loss_and_gradient(w)[1]

    def loss_and_gradient(self, w: Tensor | None = None) -> tuple[float, Tensor]:
        """The loss f and its gradient (p,) at w, or at the model's own parameters."""
        self.move_to(w)
        return self.loss_and_gradient_here()

    @torch.inference_mode(False)
    def loss_and_gradient_here(self, *, reordered: bool = False) -> tuple[float, Tensor]:
        """The loss f and its gradient (p,) where the parameters were moved to; ``reordered`` sums in another order."""
        total, parts_of_total = self._accumulators()
        losses, own, reached = [], [], False
        with self._computing(), self._untouched():
            for batch, objective, factor in self._shares(reordered=reordered):
                self._add_gradients(parts_of_total, objective, factor)
                reached |= objective.requires_grad
                own.append(batch.detach())
                losses.append(_wide(objective.detach()) * factor)
        if not reached:
            raise ObjectiveError(DETACHED)
        if not reordered:
            self._require_nothing_kept(own[0])
            self._check_pass(losses, total)
            self._require_no_memory(own, self._examples.plan)
        return float(functools.reduce(torch.add, losses)), total

    @torch.inference_mode(False)
    def loss_here(self) -> float:
        """The loss f where the parameters were moved to, without its gradient."""
        with self._computing(), self._untouched():  # a forward pass may take derivatives itself
            shares = [_wide(objective.detach()) * factor for _, objective, factor in self._shares()]
            return float(functools.reduce(torch.add, shares))

    def _shares(self, *, reordered: bool = False) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Every batch's loss, and its part in the mean over all examples, see :meth:`_scaled`."""
        places = range(len(self._examples.plan))
        for place, (batch, count) in zip(
            reversed(places) if reordered else places, self._examples.pieces(reordered=reordered), strict=True
        ):
            value, weight = self._batch_loss(batch)
            objective, factor = self._scaled(value, weight, count)
            if not reordered:
                self._require_weight(place, weight)
            yield value, objective, factor
            del value, objective

    def _accumulators(self) -> tuple[Tensor, list[Tensor]]:
        """Zeros (p,) to add to, and the same memory in the shapes of the parameters."""
        total = self._like.new_zeros(sum(self._sizes))
        return total, [part.view(p.shape) for part, p in zip(self.split(total), self.parameters, strict=True)]

    def _add_gradients(self, total: Sequence[Tensor], objective: Tensor, factor: float = 1.0) -> None:
        """Add an objective's gradient, times a factor, to ``total``, by parameter: it is never there as a whole."""
        if not objective.requires_grad:
            return  # a constant loss

        def add(parameter: Tensor, accumulated: Tensor) -> None:
            if parameter.grad is None:
                raise ObjectiveError(
                    f"a torch.autograd.Function gives None as the gradient of a trained parameter of shape "
                    f"{tuple(parameter.shape)} that it was given; let its backward compute it, or detach it"
                )
            accumulated.add_(parameter.grad, alpha=factor)
            parameter.grad = None

        hooks = []
        for parameter, accumulated in zip(self.parameters, total, strict=True):
            parameter.grad = None  # of a model that calls backward() itself
            hook = functools.partial(add, accumulated=accumulated)
            hooks.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        try:
            with _named_refusals():
                torch.autograd.backward(objective, inputs=self.parameters)
        finally:
            for hook in hooks:
                hook.remove()

    @torch.inference_mode(False)
    def minibatch_gradient(self, w: Tensor | None, batch_size: int, generator: torch.Generator) -> Tensor:
        """Gradient (p,) at w of the mean loss over ``batch_size`` examples drawn with replacement."""
        self.move_to(w)
        (batch,) = draw_batches(self.n, updates=1, batch_size=batch_size, generator=generator)
        total, parts_of_total = self._accumulators()
        with self._computing(), self._untouched():
            drawn = self._examples.take(batch.tolist())
            with self._of_any_number(batch_size):
                value, weight = self._batch_loss(drawn)
            if weight == 0:
                raise ObjectiveError(
                    "the weight of the minibatch that was drawn is 0, so it has no mean; take a larger batch_size, or "
                    "another seed"
                )
            outside = 1 / weight if weight is not None and self._outside else 1.0  # see :meth:`_scaled`
            mean = value if weight is None or self._outside else value / weight
            self._add_gradients(parts_of_total, mean, outside)
        self._require_fixed("a minibatch's")
        self._require_no_memory([value.detach()], [batch.tolist()])
        if not value.isfinite():
            self._require_diverged(total, "the minibatch")
        return total

    def reordered_gradient(self, loss: float) -> Tensor:
        """Gradient (p,) where the parameters are, summed in another order; ``loss`` is the one in the usual order.

        Raises ObjectiveError when the loss is another: then the order of examples is part of the function. So it does
        where another order shows nothing of the rounding: of one or two examples, and below float32, where outputs are
        rounded alike in any order.
        """
        self.require_single("noise_floor='reordered'")
        if self.n <= 2:
            raise ObjectiveError(
                f"{self.n} examples (or batches, of a loader that gives whole ones) have the same sum in any order, so "
                f"noise_floor='reordered' would be 0; use 'float64'"
            )
        again, gradient = self.loss_and_gradient_here(reordered=True)
        close = self._tolerance(1000) * abs(loss)
        if math.isfinite(again) and abs(again - loss) > close and not self._cancels():
            raise ObjectiveError(
                f"the loss is {loss:.6g}, but {again:.6g} with the examples of every batch in another order (it pairs "
                f"examples by where they are), so noise_floor='reordered' would be no rounding; use 'float64' or None"
            )
        return gradient

    def _cancels(self) -> bool:
        """Whether in float64 the order of examples changes nothing: large terms cancel in the loss."""
        with contextlib.suppress(Exception):
            (double := self.in_double()).move_to(self.here)
            loss, again = (double.loss_and_gradient_here(reordered=each)[0] for each in (False, True))
            return abs(again - loss) <= 1e-9 * abs(loss)
        return False

    def _require_true_hessians(self, own: Mapping[Any, int]) -> None:
        """Raise ObjectiveError when a Hessian is no derivative: of the first batch, or of those where functions are.

        ``own`` are torch.autograd.Functions and the first batch that each is in.
        """
        here = self.here
        for place in {0, *own.values()}:
            indices = self._examples.plan[place][:FEW]
            try:
                true = any(self._has_true_hessian(indices, here.double(), seed) for seed in range(2))
            except Exception:
                if place in own.values():
                    raise
                true = True  # it computes in its own precision alone
            if not true:
                raise ObjectiveError(
                    "an operation of the model or the loss has a backward whose own derivative is wrong (fused losses "
                    "that make the gradient in forward; torch's weight_norm), so there is no Hessian; use the plain "
                    "operations"
                )
        self.move_to(here)

    def _has_true_hessian(self, indices: Sequence[int], here: Tensor, seed: int) -> bool:
        """Whether the Hessian of these examples' loss is the difference of two gradients, in float64.

        Along a random direction, so near that no kink is between them, and a little aside, as there may be kinks here.
        """
        double = self if self.dtype == torch.float64 else self.in_double()
        generator = torch.Generator().manual_seed(seed)
        aside, direction = (torch.randn(len(here), generator=generator, device="cpu").to(here) for _ in range(2))
        size = max(1.0, float(here.norm()))
        aside *= 1e-4 * size / aside.norm()
        # Padding's embedding has no slope anywhere, for torch leaves that out; a critical point has one aside.
        still = double._without_slope(indices, here + aside)
        if still.all():
            return True
        aside[still], direction[still] = 0.0, 0.0
        here = here + aside
        direction *= 1e-9 * size / direction.norm()
        ends = []
        for factor in (-1, 1, 0):
            double.move_to(here + factor * direction)
            with double._computing(), sdpa_kernel(SDPBackend.MATH), _named_refusals():
                with (lowest := Watch()):
                    value = double._batch_loss(double._examples.take(indices))[0]
                _refuse_rounding(lowest)
                ends.append(_slope(value, double.parameters))
                if not factor:
                    slope = _slope(value, double.parameters, double.split(direction))
        expected, rounding = (ends[1] - ends[0]) / 2, 1e-12 * float(ends[2].norm())
        return not any(
            float(off.norm()) > 0.01 * float(part.norm()) + rounding
            for off, part in zip(double.split(slope - expected), double.split(expected), strict=True)
        )

    def _without_slope(self, indices: Sequence[int], here: Tensor) -> Tensor:
        """Which parameters (p,) these examples' loss has a slope of exactly 0 in."""
        self.move_to(here)
        with self._computing(), sdpa_kernel(SDPBackend.MATH), _named_refusals():
            return _slope(self._batch_loss(self._examples.take(indices))[0], self.parameters) == 0

    @torch.inference_mode(False)
    def hessian_product(self, w: Tensor, v: Tensor) -> Tensor:
        """H v (p,), H the Hessian of f at w, by differentiating grad f . v."""
        self.move_to(w)
        total, parts_of_total = self._accumulators()
        parts = [part.view(p.shape).to(p.dtype) for part, p in zip(self.split(v), self.parameters, strict=True)]
        own: dict[Any, int] = {}
        # Attention's fused kernels have no second derivative; the plain one is the same function.
        with self._computing(), sdpa_kernel(SDPBackend.MATH), _named_refusals():
            for place, (_, objective, factor) in enumerate(self._shares()):
                if not objective.requires_grad:
                    continue
                if not self._twice:
                    own = dict.fromkeys(_functions(objective), place) | own
                gradients = torch.autograd.grad(objective, self.parameters, create_graph=True, materialize_grads=True)
                slope = torch.stack([(g * part).sum() for g, part in zip(gradients, parts, strict=True)]).sum()
                del gradients
                self._add_gradients(parts_of_total, slope, factor)
        if not self._twice:
            self._require_true_hessians(own)
            self._twice = True
        self._require_fixed("all")
        return total


@contextlib.contextmanager
def _in_a_sentence(what: str, way_out: str) -> Iterator[None]:
    """An error while something is computed, in a sentence; not that memory is short, which smaller chunks mend."""
    try:
        yield
    except (ObjectiveError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ObjectiveError(
            f"{what} cannot be computed ({type(error).__name__}: {first_line(error)}), {way_out}"
        ) from error


def require_objective(given: Any) -> Objective:
    """The objective; raises ObjectiveError for what is none, such as a model."""
    if not isinstance(given, Objective):
        what = type(given).__name__
        raise ObjectiveError(f"an Objective is expected, as Objective(model, x, y) makes one, got {what}")
    return given


def _refuse_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """A hook that keeps optimisers of the loss's from a step while it is computed."""
    raise ObjectiveError(
        f"the loss makes a step of the optimiser {type(optimizer).__name__}; give the loss alone, without backward() "
        f"and step()"
    )


def flatten(vectors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors into one flat copy, each in its logical (row-major) order."""
    return torch.cat([each.reshape(-1) for each in vectors])


def _refuse_settings(
    model: nn.Module, norm_mode: NormMode, dtype: torch.dtype | None, loss: Loss, forward: Forward | None
) -> None:
    """Raise ValueError for what is no model, mode, precision, loss or forward, and inside a cache of weights."""
    if norm_mode not in ("batch", "running", "as is"):
        raise ValueError(f"norm_mode must be 'batch', 'running' or 'as is', got {norm_mode!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point torch.dtype, got {dtype!r}")
    if not isinstance(model, nn.Module):
        raise ObjectiveError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss) or isinstance(loss, type):
        raise ObjectiveError(
            f"the loss must be a function of outputs and targets, such as torch.nn.CrossEntropyLoss(), got {loss!r}"
        )
    if forward is not None:
        if not callable(forward):
            raise ObjectiveError(f"forward must be a function of a model and a batch, got {forward!r:.60}")
        try:
            inspect.signature(forward, follow_wrapped=False).bind(model, None)
        except TypeError as error:
            raise ObjectiveError(f"forward is called as forward(model, batch), but of this one {error}") from error
        except ValueError:  # a compiled function has no signature
            pass
    if parametrize._cache_enabled:
        raise ObjectiveError(
            "torch.nn.utils.parametrize.cached() is on, which keeps weights as they were when the parameters move; "
            "measure outside it"
        )


def _number(weight: Any) -> float:
    """A batch's weight; raises ObjectiveError when it is no number, or the parameters have a part in it."""
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise ObjectiveError(
            "the second of the pair that the loss returns is taken for the batch's weight and must not depend on the "
            "parameters; return the mean alone (of two losses their sum), or detach the weight"
        )
    try:
        return float(weight)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ObjectiveError(
            f"the second of the pair that the loss returns must be the batch's weight, one number, got a "
            f"{type(weight).__name__}; return the mean alone, or (sum, weight)"
        ) from error


def _refuse_rounding(lowest: Watch) -> None:
    """Raise ObjectiveError when something was rounded to a lower precision than float64."""
    if lowest.rounded:
        raise ObjectiveError(
            f"the model or the loss rounds to {next(iter(lowest.rounded))} on its way (.float(), .to(torch.float32)), "
            f"so it does not compute in float64; let it keep the precision that it is given, or do without float64 "
            f"(noise_floor='reordered'; below float32 None)"
        )


def _slope(value: Tensor, parameters: Sequence[Tensor], direction: Sequence[Tensor] | None = None) -> Tensor:
    """The gradient (p,) of a loss, or its Hessian times a direction."""
    if not value.requires_grad:
        return flatten([torch.zeros_like(p) for p in parameters])
    found = torch.autograd.grad(value, list(parameters), create_graph=True, materialize_grads=True)
    if direction is not None:
        along = [(g * part.view(g.shape)).sum() for g, part in zip(found, direction, strict=True)]
        return _slope(torch.stack(along).sum(), parameters)
    return flatten([each.detach().to_dense() for each in found])


def _functions(value: Tensor) -> Iterator[Any]:
    """The torch.autograd.Functions that a value was computed by.

    Raises ObjectiveError for one whose gradient cannot be differentiated, which torch leaves out silently.
    """
    for node in _nodes(value):
        function = getattr(node, "_forward_cls", None)
        backward = getattr(function, "backward", None)
        if "once_differentiable" in getattr(getattr(backward, "__code__", None), "co_qualname", ""):
            raise ObjectiveError(
                f"{node.name()} is once_differentiable, so the model has no Hessian; write its backward in "
                f"differentiable operations"
            )
        if function is not None:
            yield function


def _in_precision(loss: Loss, dtype: torch.dtype | None) -> Loss:
    """A loss whose own tensors, where they can be seen, are in this precision."""
    if dtype is None or not isinstance(loss, functools.partial):
        return loss

    def move(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return functools.partial(loss.func, *map(move, loss.args), **{k: move(v) for k, v in loss.keywords.items()})


BESIDE = (nn.Module, Dataset, DataLoader, torch.optim.Optimizer)  # what a loss may hold that is never copied
FEW = 16  # so many examples' losses are computed in float64
LOOKED_AT = 128  # so many examples are drawn from all over the data: one in a hundred is among them three times in four
SINGLE = torch.finfo(torch.float32).eps
SINGLE_BYTES, LARGE = 4, 2**28
"""Bytes of a number in float32; bytes by which a copy in float64 may exceed twice the model."""
RESIDUE = 1e-6  # a loss that is smaller than this beside what it is a small step away may be what rounding leaves of it
EXACT = 1e-10  # how far, relatively, ways to sum one loss may differ in float64; a loss may be small beside its terms
ALIKE = 0.002  # losses that are relatively nearer than this are about the same
SMALLEST = 100_000  # numbers in the smallest parameters, of which gradients are compared
NO_SLOPE = 1e-9  # gradients this small beside the loss are rounding
SAME_SLOPE = 1e-6  # how far, relatively, ways to sum one gradient may differ in float64
SAME_WEIGHT = 1e-6  # how far, relatively, rounding may move a batch's weight from one time to the next
MISFIT = (
    "so check that the model takes these inputs, and the loss its outputs with these targets, in batches of any size "
    "(a model that keeps a state between them is reset in forward=)"
)
NOT_FED = (TypeError, AttributeError, KeyError, IndexError)
"""What a model or a loss raises that is given a tuple where it takes a tensor, say."""
IDENTITY = (
    "the loss or the model tells parameters apart by what they are (id(p), `is`, as keys), but copies take their place "
    "while they are measured, so it gave another gradient; tell them apart by name (model.named_parameters())"
)
BY_MODE = ", or, where evaluation mode does so, measure the evaluated function by norm_mode='running'"
KEPT = (
    "the model keeps something that it computed from its parameters (a cache of weights or features) and uses it "
    "again; empty the cache, or switch it off for the measurement; where forward= calls backward() itself, or an "
    "operation changes a tensor in place that its gradient needs, let it do without"
)
OF_TYPES = ("dtype", "scalar type", "can't be cast", "not implemented for '", "type (float) should be the same")
DETACHED = (
    "every batch's loss is detached from the trained parameters (no_grad in the model's forward, .item(), .detach(), "
    "another tensor made of it), so nothing has a gradient; let autograd see how it is computed"
)
UNTOLD = (
    "the loss gives a pair, (sum, weight), but of one example nothing tells whether the second is its weight and no "
    "accuracy or count; return its loss alone"
)
REENTRANT = (
    "the model uses reentrant checkpointing, which hides its parameters from torch.autograd.grad; use "
    "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
)


def _wide(vector: Tensor) -> Tensor:
    """The vector in float32 at least: long sums stall in less."""
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """Every tensor that requires a gradient and that a value was computed from."""
    return (node.variable for node in _nodes(value) if hasattr(node, "variable"))


def _pads(node: Any) -> bool:
    """Whether a node of a graph is an embedding with a row for padding; torch tells -1, for none, as 2**64 - 1."""
    return getattr(node, "_saved_padding_idx", -1) in range(2**63)


def _nodes(value: Tensor) -> Iterator[Any]:
    """Every node of the graph that a value was computed by."""
    seen, todo = set[Any](), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo += [each for each, _ in node.next_functions]


def _no_mean(size: int, loss: float, expected: float | None, n: int) -> str:
    """The sentence on a loss that is no mean over the examples; without ``expected`` its gradient shows it."""
    seen = "its gradient is not the mean of its parts'" if expected is None else f"its parts' mean is {expected:.9g}"
    return (
        f"the loss of {size} examples is {loss:.9g}, but {seen}: it is no mean over the examples (class weights, "
        f"ignored targets, a sum, outputs (n, 1) beside targets (n,), a term or a loss of the batch as a whole, a "
        f"collate_fn that drops some), so its value would depend on the batches; return a pair (sum, weight) from the "
        f"loss, or let one batch hold all examples (chunk_size={n}; a data loader's own batch_size)"
    )


def _parts(indices: Sequence[int]) -> list[Sequence[int]]:
    """Two examples, whose padding may be another, and of the others a third and two thirds.

    Both are from all over the batch, whose examples may be in an order of their own.
    """
    few, others = (indices[:2], indices[2:]) if len(indices) > 5 else ([], indices)
    parts = [few, others[::3], [each for place, each in enumerate(others) if place % 3]]
    return [part for part in parts if part]


def _aliased(name: str) -> str:
    """The sentence on a loss that reads the user's own weights by another way than the model."""
    return (
        f"the loss reads {name} by something that was taken out of the model beforehand and shares its memory (a "
        f"detached tensor, .data, .numpy(), state_dict(), an optimiser's param_groups), which cannot be moved with it; "
        f"ask the model for it each time (model.layer.weight)"
    )


def _refuse_arrays(held: Sequence[Any], names: Sequence[str], parameters: Sequence[Tensor]) -> None:
    """Raise ObjectiveError for numpy arrays in the memory of trained parameters, whose reading nobody sees."""
    arrays = [each for each in held if isinstance(each, np.ndarray)]
    for name, parameter in zip(names, parameters, strict=True):
        if arrays and parameter.device.type == "cpu" and parameter.dtype != torch.bfloat16:
            own = parameter.detach().numpy()
            if any(np.may_share_memory(each, own) for each in arrays):
                raise ObjectiveError(_aliased(name))


def _changing(first: float, second: float, buffers: Sequence[str], norm_mode: NormMode) -> str:
    """The sentence on a loss that is no fixed function."""
    memory = f" ({', '.join(buffers[:3])} changed, so layers have a memory)" if buffers else ""
    return (
        f"the same examples at the same parameters gave the losses {first:.9g} and {second:.9g}{memory}: something in "
        f"the model, the loss or the data set is random or remembers; switch it off, or fix its seed"
        f"{BY_MODE if norm_mode == 'batch' else ''}"
    )


@contextlib.contextmanager
def _named_refusals(dtype: torch.dtype | None = None) -> Iterator[None]:
    """Torch's own errors about derivatives and precisions, in a sentence with the way out."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ObjectiveError) or (sentence := _sentence(str(error), dtype)) is None:
            raise
        raise ObjectiveError(sentence) from error


def _sentence(text: str, dtype: torch.dtype | None) -> str | None:  # noqa: PLR0911  a kind a line
    """What one of torch's errors means here, where that is known."""
    first = text.splitlines()[0] if text else ""
    if "more than 1 value per channel" in text:
        return (
            "a BatchNorm in training mode needs more than one example in every batch; take a larger chunk_size, a data "
            "loader whose last batch has more than one, or a larger batch_size"
        )
    if "HigherOrderOperator" in text:
        return (
            f"the model or the loss uses an operation that cannot be looked into ({first.split(' and mode')[0]}); "
            f"compute the same by plain operations (torch.where for torch.cond)"
        )
    if "use_reentrant" in text:
        return REENTRANT
    if "torch.utils.checkpoint" in text and "ecomput" in text:
        return KEPT
    if "CPU int64 tensor" in text:
        return (
            "every tensor of a batch is moved to the model's device, but lengths of sequences must stay on the CPU; "
            "give forward=, and pass lengths.cpu() there"
        )
    if "donated buffer" in text:
        return "a compiled model has no second derivative; give the eager model (model._orig_mod)"
    if "derivative for" in text or "double backward" in text:
        return f"the model or the loss cannot be differentiated so often: {first}"
    if "backward through the graph a second time" in text or "modified by an inplace operation" in text:
        return KEPT
    if "must be Tensor, not" in text:
        return (
            f"an operation was given no tensor ({first}): where the model takes or returns several things, say which "
            f"are meant by forward=lambda model, batch: ..., which returns the batch's loss"
        )
    if not any(each in text for each in OF_TYPES):
        return None
    if dtype is not None:
        return (
            f"computing in {dtype} failed ({first}): tensors that a function keeps to itself stay as they are; hold "
            "them as buffers of a module, or as arguments of functools.partial, and let the model convert inputs by "
            "x.to(weight.dtype) instead of x.float()"
        )
    return (
        f"torch cannot compute with these types ({first}); convert the examples (x.float(), y.long()), or give dtype=, "
        f"to which the model and floating-point examples are moved"
    )

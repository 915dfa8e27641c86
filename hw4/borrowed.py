"""A user's model, measured as it stands: its parameters and buffers replaced by ours while we compute, then put back.

Nothing is copied that need not be: a module's attributes live in one dictionary, and another dictionary takes its place
for as long as we compute. So whatever refers to the model, a closure, a wrapper or a hook, sees our values too.
"""

import contextlib
import copy
import functools
import itertools
import random
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw4.errors import ObjectiveError
from hw4.specs import NormMode

BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
"""Layers that are known to look at the whole batch in training mode; their running statistics change nothing there."""
DROPOUT = (nn.modules.dropout._DropoutNd,)


class Borrowed:
    """Modules whose parameters and buffers are replaced by copies of ours, in ``dtype`` when one is given.

    ``names`` and ``leaves`` are the model's trained parameters, each once, ``originals`` the user's own, which
    ``theirs`` leaves in place. ``beside`` are modules used with it, such as a loss's, and data and optimisers, which
    are never copied. ``norm_mode`` sets the mode of the model: "batch" trains, "running" evaluates, "as is" leaves
    every layer in the mode it is in. Raises ObjectiveError for what cannot be measured.
    """

    def __init__(
        self,
        model: nn.Module,
        beside: Sequence[Any],
        norm_mode: NormMode,
        dtype: torch.dtype | None,
        *,
        theirs: bool = False,
    ) -> None:
        others = [each for each in beside if isinstance(each, nn.Module)]
        self.modules = list(dict.fromkeys(each for module in (model, *others) for each in module.modules()))
        _refuse(model, self.modules, norm_mode)
        self._original = {module: module.__dict__ for module in self.modules}
        replaced: dict[Tensor, Tensor] = {}
        for module in self.modules:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor not in replaced:
                    replaced[tensor] = tensor if theirs and tensor.requires_grad else _own(tensor, dtype)
        memo: dict[int, Any] = {id(each): each for each in (*beside, *self.modules)}
        memo |= {id(tensor): own for tensor, own in replaced.items()}  # so that copies of attributes hold ours
        self._inner = {
            module: {name: _copied(value, memo) for name, value in vars(module).items()} for module in self.modules
        }
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ObjectiveError(
                "the model has no parameter that requires a gradient: nothing is trained, so nothing can be measured; "
                "set requires_grad on what is"
            )
        self._busy = False
        self.names = [name for name, _ in named]
        self.leaves = [replaced[p] for _, p in named]
        self.originals = [p for _, p in named]
        with self.inside():
            if norm_mode != "as is":
                model.train(norm_mode == "batch")
            self._start = self._buffers()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Our values take the place of the user's, and go again whatever happens."""
        if self._busy:
            yield
            return
        try:
            self._busy = True
            for module, attributes in self._inner.items():
                object.__setattr__(module, "__dict__", attributes)
            yield
        finally:
            for module, attributes in self._original.items():
                object.__setattr__(module, "__dict__", attributes)
            self._busy = False

    @contextlib.contextmanager
    def without_batch_statistics(self) -> Iterator[None]:
        """Inside, layers that are known to look at the whole batch normalise by fixed numbers instead."""
        looking = [each for each in self.modules if isinstance(each, BATCH_STATISTICS)]
        kept = [(each, each.training, each.running_mean, each.running_var) for each in looking]
        for module in looking:
            module.training = False
            if module.running_mean is None:  # then it looks at the batch in evaluation mode too
                like = torch.zeros(module.num_features, dtype=self.leaves[0].dtype, device=self.leaves[0].device)
                module.running_mean, module.running_var = like, like + 1
        try:
            yield
        finally:
            for module, training, mean, variance in kept:
                module.training, module.running_mean, module.running_var = training, mean, variance

    @property
    def looks_at_batches(self) -> bool:
        """Whether a layer is known to look at the whole batch."""
        return any(isinstance(each, BATCH_STATISTICS) for each in self.modules)

    def changed_buffers(self) -> list[str]:
        """Names of buffers that computing has changed and that are no running statistics of a BatchNorm."""
        now = self._buffers()
        return [name for name, value in now.items() if not _equal(value, self._start.get(name))]

    def _buffers(self) -> dict[str, Tensor]:
        """Copies of all buffers but BatchNorm's."""
        return {
            f"{type(module).__name__}.{name}": buffer.detach().clone()
            for module in self.modules
            if not isinstance(module, BATCH_STATISTICS)
            for name, buffer in self._inner[module]["_buffers"].items()
            if buffer is not None
        }


def _refuse(model: nn.Module, modules: Sequence[nn.Module], norm_mode: NormMode) -> None:
    """Raise ObjectiveError for modules and parameters that cannot be measured, by name."""
    _refuse_modes(model, norm_mode)
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ObjectiveError("a scripted module keeps its parameters where they cannot be moved; give the eager module")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ObjectiveError(f"the parameter {name} has no shape yet; run the model once on a batch")
        if parameter.device != next(model.parameters()).device or parameter.is_meta:
            raise ObjectiveError(
                f"the parameter {name} is on {parameter.device}; all must have values on one device, so load them or "
                f"move the model (model.to(device))"
            )
        if parameter.requires_grad and parameter.is_complex():
            raise ObjectiveError(
                f"the parameter {name} is complex, and smoothness is defined for real ones; hold its real and "
                f"imaginary parts as a real parameter (torch.view_as_real)"
            )
        if parameter.requires_grad and parameter._backward_hooks:
            raise ObjectiveError(
                f"the parameter {name} has a hook that may change its gradient, chunk by chunk; remove it for the "
                f"measurement (the handle's remove())"
            )
    _refuse_shared_memory(model)


def _refuse_modes(model: nn.Module, norm_mode: NormMode) -> None:
    """Raise ObjectiveError for layers in another mode than the model, and for dropout that is on."""
    for name, module in model.named_modules():
        if norm_mode != "as is" and module.training != model.training:
            raise ObjectiveError(
                f"{name} ({type(module).__name__}) is in {'training' if module.training else 'evaluation'} mode and "
                f"the model is not, so norm_mode={norm_mode!r} would measure another function than the one that is "
                "trained; norm_mode='as is' measures every layer in the mode it is in"
            )
    for name, module in model.named_modules():
        on = norm_mode == "batch" or (norm_mode == "as is" and module.training)
        if on and isinstance(module, DROPOUT) and module.p > 0:
            raise ObjectiveError(
                f"dropout is on in {name or 'the model'} (p = {module.p:g}), so the loss is drawn anew each time; "
                f"measure the evaluated function by norm_mode='running', or set p to 0"
            )


def _refuse_shared_memory(model: nn.Module) -> None:
    """Raise ObjectiveError when a trained parameter and another tensor of the model are views of the same memory."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, module in model.named_modules():
        own = {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
        for name, tensor in (*module._parameters.items(), *module._buffers.items(), *own.items()):
            if (
                tensor is not None
                and tensor.layout == torch.strided
                and tensor.numel()
                and tensor.device.type != "meta"
            ):
                found.setdefault(id(tensor), (f"{prefix}.{name}".strip("."), tensor))
    spans = sorted((tensor.data_ptr(), name, tensor) for name, tensor in found.values() if tensor.grad_fn is None)
    for (start, name, tensor), (after, other, second) in itertools.pairwise(spans):
        size = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        if after < start + size * tensor.element_size() and (tensor.requires_grad or second.requires_grad):
            raise ObjectiveError(
                f"{name} and {other} share memory without being one parameter, so moving one would leave the other "
                f"behind; assign the parameter itself (a.weight = b.weight), or copy"
            )


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of our own with these values, of the same kind: a leaf where it is trained."""
    with torch.inference_mode(False), torch.no_grad():
        own = tensor.detach().clone()
        own = own.to(dtype) if dtype is not None and own.is_floating_point() else own
        if isinstance(tensor, nn.Parameter):
            own = torch.Tensor._make_subclass(type(tensor), own, tensor.requires_grad)
    own.__dict__.update(vars(tensor))
    return own


class _Memo(dict[int, Any]):
    """What deepcopy has copied so far, on top of what is settled: forgotten when the copy fails half-way."""

    def __init__(self, settled: Mapping[int, Any]) -> None:
        super().__init__()
        self.settled = settled

    def get(self, key: int, default: Any = None) -> Any:
        return super().get(key, self.settled.get(key, default))


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy, or the value itself where it has none (a lock, an open file), which then everybody shares."""
    if isinstance(value, Generator | bool | int | float | str | type(None) | type):
        return value
    attempt = _Memo(memo)
    try:
        found = copy.deepcopy(value, attempt)
    except Exception:
        return _copied_in_parts(value, memo)
    memo.update(attempt)
    return found


def _copied_in_parts(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of what holds something without one: all else in it is copied."""
    if id(value) in memo:
        return memo[id(value)]
    found: Any
    try:
        found = memo[id(value)] = value if isinstance(value, Tensor) else copy.copy(value)
    except Exception:
        found = memo[id(value)] = value
    if found is value:
        return value
    if isinstance(value, list):
        found[:] = [_copied(each, memo) for each in value]
    elif isinstance(value, dict):
        found.update({key: _copied(each, memo) for key, each in value.items()})
    found_own = getattr(found, "__dict__", {})
    found_own.update({name: _copied(each, memo) for name, each in found_own.items()})
    return found


@contextlib.contextmanager
def lent(objects: Sequence[Any], kept: Sequence[Any]) -> Iterator[None]:
    """Inside, objects have copies of their attributes, of which ``kept`` are none; afterwards they have their own."""
    originals = {id(each): (each, vars(each)) for each in objects if hasattr(each, "__dict__")}
    memo = {id(each): each for each in (*objects, *kept)}
    copies = [(each, {k: _copied(v, memo) for k, v in own.items()}) for each, own in originals.values()]
    try:
        for each, attributes in copies:
            object.__setattr__(each, "__dict__", attributes)
        yield
    finally:
        for each, own in originals.values():
            object.__setattr__(each, "__dict__", own)


def _equal(first: Tensor, second: Tensor | None) -> bool:
    if second is None or first.shape != second.shape or first.layout != second.layout:
        return False
    if first.layout != torch.strided:
        first, second = first.to_dense(), second.to_dense()
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())


Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class Randomness:
    """Which random generators move while something is computed; afterwards all are as they were.

    Watched are the default generators of torch, numpy and Python, and those that ``holders`` (modules, functions, data
    sets) keep among their attributes, in their closures or as arguments.
    """

    def __init__(self, holders: Sequence[Any] = ()) -> None:
        self.moved: list[str] = []
        self._own = [each for each in reachable(holders) if isinstance(each, Generator)]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the generators, and put them back."""
        before = self._states()
        try:
            yield
        finally:
            after = self._states()
            self.moved += [name for name in before if not _same(before[name], after[name])]
            torch.set_rng_state(before["torch"])
            np.random.set_state(before["numpy"])  # noqa: NPY002  what others draw from
            random.setstate(before["Python's random"])
            if "torch.cuda" in before:
                torch.cuda.set_rng_state_all(before["torch.cuda"])
            for place, generator in enumerate(self._own):
                _set_state(generator, before[f"a {type(generator).__name__} of its own ({place + 1})"])

    def _states(self) -> dict[str, Any]:
        states: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002
            "Python's random": random.getstate(),
        }
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            states["torch.cuda"] = torch.cuda.get_rng_state_all()
        for place, generator in enumerate(self._own):
            states[f"a {type(generator).__name__} of its own ({place + 1})"] = _state(generator)
        return states


MOST = 20_000
"""So many objects are looked through at most."""


def reachable(holders: Sequence[Any]) -> Iterator[Any]:
    """What can be reached from objects: attributes, elements, keys, closures, globals they name; no text, no module."""
    seen, todo = set[int](), list(holders)
    while todo and len(seen) < MOST:
        value = todo.pop()
        if id(value) in seen or isinstance(value, str | bytes | float | np.ndarray | types.ModuleType):
            continue
        seen.add(id(value))
        yield value
        if not isinstance(value, Generator | Tensor | int):
            todo += _within(value)


def _within(value: Any) -> list[Any]:  # noqa: PLR0911  a kind a line
    """What an object holds, a level down."""
    if isinstance(value, Mapping):
        return [each for pair in itertools.islice(value.items(), 100) for each in pair]
    if isinstance(value, list | tuple | set | frozenset):
        return list(itertools.islice(value, 100))
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        found = [value.__globals__.get(name) for code in _codes(value.__code__) for name in code.co_names]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is still empty
                found.append(cell.cell_contents)
        return [*found, *(value.__defaults__ or ())]
    if isinstance(value, type) or type(value).__module__.partition(".")[0] in ("torch", "numpy", "builtins"):
        names = () if isinstance(value, type) else getattr(value, "__dict__", {})
        return [names[name] for name in names if name not in ("_parameters", "_buffers")]
    own = [each for name, each in getattr(value, "__dict__", {}).items() if name not in ("_parameters", "_buffers")]
    return [*own, *(each for each in vars(type(value)).values() if isinstance(each, types.FunctionType | Generator))]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return bool(np.array_equal(first, second))
    if isinstance(first, dict):
        return all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, tuple) and not any(isinstance(each, Tensor | np.ndarray) for each in first):
        return bool(first == second)  # of Python's random: 625 numbers
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)

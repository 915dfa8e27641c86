"""A user's model, measured as it stands: its parameters and buffers replaced by ours while we compute, then put back.

Nothing is copied that need not be: a module's attributes live in one dictionary, and another dictionary takes its place
for as long as we compute. So whatever refers to the model, a closure, a wrapper or a hook, sees our values too.
"""

import contextlib
import copy
import random
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
    """Modules whose parameters that require a gradient are replaced by leaves of ours, floating buffers by copies.

    ``names`` and ``leaves`` are the first module's trained parameters, each once; those of the others (a loss that is a
    module) are only converted to ``dtype``. ``norm_mode`` sets the mode of the first module: "batch" trains, "running"
    evaluates, "as is" leaves every layer in the mode it is in. Raises ObjectiveError for what cannot be measured.
    """

    def __init__(self, model: nn.Module, others: Sequence[nn.Module], norm_mode: NormMode, dtype: torch.dtype | None):
        self.modules = list(dict.fromkeys(each for module in (model, *others) for each in module.modules()))
        _refuse(model, self.modules, norm_mode)
        self._original = {module: module.__dict__ for module in self.modules}
        replaced: dict[Tensor, Tensor] = {}
        for module in self.modules:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor not in replaced:
                    replaced[tensor] = _own(tensor, dtype)
        memo: dict[int, Any] = {id(module): module for module in self.modules}
        memo |= {id(tensor): own for tensor, own in replaced.items()}
        self._inner = {module: _inside(module, replaced, memo) for module in self.modules}
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ObjectiveError(
                "the model has no parameter that requires a gradient: nothing is trained, so nothing can be measured; "
                "set requires_grad on what is"
            )
        self._busy = False
        self.names = [name for name, _ in named]
        self.leaves = [replaced[p] for _, p in named]
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
        """Inside, layers that are known to look at the whole batch evaluate instead."""
        looking = [each for each in self.modules if isinstance(each, BATCH_STATISTICS) and each.training]
        for module in looking:
            module.training = False
        try:
            yield
        finally:
            for module in looking:
                module.training = True

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
    kinds = [
        (name or "the model", module)
        for name, module in model.named_modules()
        if isinstance(module, BATCH_STATISTICS) or (isinstance(module, DROPOUT) and module.p > 0)
    ]
    odd = next(((name, module) for name, module in kinds if module.training != model.training), None)
    if norm_mode != "as is" and odd is not None:
        raise ObjectiveError(
            f"{odd[0]} ({type(odd[1]).__name__}) is in {'training' if odd[1].training else 'evaluation'} mode and the "
            f"model is not, so norm_mode={norm_mode!r} would measure another function than the one that is trained; "
            f"norm_mode='as is' measures every layer in the mode it is in"
        )
    for name, module in kinds:
        on = norm_mode == "batch" or (norm_mode == "as is" and module.training)
        if on and isinstance(module, DROPOUT):
            raise ObjectiveError(
                f"dropout is on in {name} (p = {module.p:g}), so the loss is drawn anew each time; measure the "
                f"evaluated function by norm_mode='running', or set p to 0"
            )
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ObjectiveError("a scripted module keeps its parameters where they cannot be moved; give the eager module")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ObjectiveError(f"the parameter {name} has no shape yet; run the model once on a batch")
        if parameter.requires_grad and parameter.is_complex():
            raise ObjectiveError(
                f"the parameter {name} is complex, and smoothness is defined for real ones; hold its real and "
                "imaginary parts as a real parameter (torch.view_as_real)"
            )


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of our own with these values, of the same kind: a leaf where it is trained."""
    with torch.inference_mode(False), torch.no_grad():
        own = tensor.detach().clone(memory_format=torch.preserve_format)
        own = own.to(dtype) if dtype is not None and own.is_floating_point() else own
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own


def _inside(module: nn.Module, replaced: Mapping[Tensor, Tensor], memo: dict[int, Any]) -> dict[str, Any]:
    """A module's attributes for as long as we compute: its tensors replaced, everything else copied that can be."""
    inner: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers"):
            inner[name] = {key: None if each is None else replaced[each] for key, each in value.items()}
        elif name == "_modules":
            inner[name] = dict(value)
        else:
            try:
                inner[name] = value if isinstance(value, Generator) else copy.deepcopy(value, memo)
            except Exception:  # a lock, an open file, a tensor with a history: shared
                inner[name] = value
    return inner


def _equal(first: Tensor, second: Tensor | None) -> bool:
    return second is not None and first.shape == second.shape and bool((first == second).all())


Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class Randomness:
    """Which random generators move while something is computed; afterwards all are as they were.

    Watched are the default generators of torch, numpy and Python, and those that ``holders`` (modules, functions, data
    sets) keep among their attributes, in their closures or as arguments.
    """

    def __init__(self, holders: Sequence[Any] = ()) -> None:
        self.moved: list[str] = []
        self._own = list({id(each): each for holder in holders for each in _kept_generators(holder)}.values())

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
        if torch.cuda.is_available():
            states["torch.cuda"] = torch.cuda.get_rng_state_all()
        for place, generator in enumerate(self._own):
            states[f"a {type(generator).__name__} of its own ({place + 1})"] = _state(generator)
        return states


def _kept_generators(holder: Any) -> Iterator[Any]:
    """The random generators that an object keeps where they can be seen."""
    values = list(vars(holder).values()) if hasattr(holder, "__dict__") else []
    values += [cell.cell_contents for cell in getattr(holder, "__closure__", None) or () if cell.cell_contents]
    values += [*getattr(holder, "args", ()), *getattr(holder, "keywords", {}).values(), *vars(type(holder)).values()]
    return (value for value in values if isinstance(value, Generator))


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
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)

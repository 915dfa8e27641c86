"""A user's model, measured as it stands: its parameters and buffers replaced by ours while we compute, then put back.

Nothing is copied that need not be: a module's attributes live in one dictionary, and another dictionary takes its place
for as long as we compute. So whatever refers to the model, a closure, a wrapper or a hook, sees our values too.
"""

import contextlib
import copy
import dis
import functools
import inspect
import io
import itertools
import math
import random
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.data import DataLoader, Dataset

from hw4.errors import ObjectiveError
from hw4.memory import fingerprint, overlapping
from hw4.specs import NormMode

BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
"""Layers that are known to look at the whole batch in training mode; their running statistics change nothing there."""
DROPOUT = (nn.modules.dropout._DropoutNd,)


class Borrowed:
    """Modules whose parameters and buffers are replaced by copies of ours, in ``dtype`` when one is given.

    ``names`` and ``leaves`` are the model's trained parameters, each once, ``originals`` the user's own, which
    ``theirs`` leaves in place. ``beside`` are modules used with it, such as a loss's, and data and optimisers, which
    are never copied; ``held`` is what the loss holds, which the model's share in it stays shared with. ``norm_mode``
    sets the mode of the model: "batch" trains, "running" evaluates, "as is" leaves
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
        held: Sequence[Any] = (),
    ) -> None:
        self.modules = _all_modules(model, beside)
        _refuse(model, self.modules, norm_mode)
        self._original = [vars(module) for module in self.modules]
        self._fixed, self._busy = list(self._described(modes=norm_mode == "as is")), False
        replaced = _replaced(self.modules, dtype, theirs=theirs)
        memo = self._memo(beside, held, replaced)
        self._inner = [
            (module, {name: copied(value, memo) for name, value in vars(module).items()}) for module in self.modules
        ]
        for tensor, own in replaced.items():
            if own is not tensor:
                own.__dict__.update({name: copied(value, memo) for name, value in vars(tensor).items()})
        self._contents = [(each, _mapped(_content(each), memo)) for each in self._shared]
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ObjectiveError(
                "the model has no parameter that requires a gradient: nothing is trained, so nothing can be measured; "
                "set requires_grad on what is"
            )
        self.names = [name for name, _ in named]
        self.leaves = [replaced[p] for _, p in named]
        self.originals = [p for _, p in named]
        self._views = _views_among_buffers(self.modules)
        before = [fingerprint(leaf) for leaf in self.leaves]
        with self.inside():
            kept = {*self._mergeable().values()}
            if norm_mode != "as is":
                _set_mode(model, training=norm_mode == "batch")
            merged = [name for (_, name), each in self._mergeable().items() if each not in kept]
            self._start = self._constants()
            self._first = [{**vars(each), "_buffers": dict(each._buffers)} for each in self.modules]
            holders = [*self.modules, *held, *(vars(own) for own in self.leaves)]
            self._plain = self._numbers({id(own) for own in replaced.values()})
            self._stores = [(each, _content(each)) for each in reachable(holders) if _may_keep(each)]
        self._require_kept(before, merged)

    def _numbers(self, ours: Collection[int]) -> dict[int, tuple[Any, Any]]:
        """Tensors and arrays among modules' attributes that may be a cache of weights, with copies, by their ids."""
        own = reachable([vars(each) for each in self.modules], {id(each) for each in self.modules}, code=False)
        plain = [each for each in own if isinstance(each, np.ndarray) or (isinstance(each, Tensor) and each.is_leaf)]
        few = [each for each in plain if id(each) not in ours and _size(each) <= LARGEST_CACHE]
        return {id(each): (each, copy.deepcopy(each)) for each in few}

    def _mergeable(self) -> dict[tuple[int, str], int]:
        """Fingerprints of what a train() of the user's may merge weights into: tensors that are not trained."""
        if all(type(each).train is nn.Module.train for each in self.modules):
            return {}
        found = dict[tuple[int, str], int]()
        for place, module in enumerate(self.modules):
            for name, each in {**module._parameters, **module._buffers, **vars(module)}.items():
                frozen = isinstance(each, Tensor) and not (each.requires_grad or each.is_meta or each.is_quantized)
                if frozen and _size(each) < math.inf:
                    found[place, f"{type(module).__name__}.{name}"] = fingerprint(each)
        return found

    def _require_kept(self, before: Sequence[int], merged: Sequence[str]) -> None:
        """Raise ObjectiveError when setting the mode has changed trained weights, or merged them into others."""
        changed = [
            name for name, leaf, then in zip(self.names, self.leaves, before, strict=True) if fingerprint(leaf) != then
        ]
        if changed or merged:
            what = f"its trained weights ({changed[0]})" if changed else merged[0]
            raise ObjectiveError(
                f"the model changes {what} in train() or eval(), as adapters do that are merged there; put it in the "
                f"mode that is meant, with nothing merged, and give norm_mode='as is'"
            )

    def _memo(self, beside: Sequence[Any], held: Sequence[Any], replaced: Mapping[Tensor, Tensor]) -> dict[int, Any]:
        """The memo of deepcopy: tensors map to ours; modules, data and the loss's own objects map to themselves."""
        alone = {id(module) for module in self.modules}
        mine = list(reachable([value for module in self.modules for value in vars(module).values()], alone, code=False))
        # What code names is told apart by `is`.
        code: list[Any] = [each for each in mine if isinstance(each, types.FunctionType)]
        code += [kind for module in self.modules for kind in type(module).__mro__ if not _foreign(kind.__module__)]
        code += [target for each in mine if isinstance(each, weakref.ref) and (target := each()) is not None]
        used = {id(each) for each in reachable([*held, *code], alone | {id(each) for each in beside})}
        self._shared = [
            each
            for each in mine
            if (id(each) in used or _ends(each) or is_own_attributes(each))
            and _has_state(each)
            and id(each) not in alone
        ]
        once = [each for each in mine if isinstance(each, Rng | Dataset | DataLoader) or type(each) is object]
        once += [each for each in mine if _runs(each) or _ends(each)]
        kept = (*beside, *self.modules, *self._shared, *once)
        return {id(each): each for each in kept} | {id(tensor): own for tensor, own in replaced.items()}

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Our values take the place of the user's, and go again whatever happens."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            with standing_in(self._inner, self._contents):
                yield
                self._contents = [(each, _content(each)) for each, _ in self._contents]
        finally:
            self._busy = False

    @property
    def keeps(self) -> bool:
        """Whether modules, or what they refer to, have changed since the start. To be asked inside :meth:`inside`."""
        return (
            bool(self.changed_buffers())
            or any(not _alike(now, then) for now, then in self._plain.values())
            or any(_differ(_held(each), content) for each, content in self._stores)
            or any(
                _differ({**vars(each), "_buffers": first["_buffers"]}, first)
                for each, first in zip(self.modules, self._first, strict=True)
            )
        )

    @contextlib.contextmanager
    def as_at_first(self) -> Iterator[None]:
        """Inside, modules hold what they began with, and so does what they refer to."""
        first = []
        for place, (module, then) in enumerate(zip(self.modules, self._first, strict=True)):
            at_start = {name: self._start.get((place, name)) for name in then["_buffers"]}
            copies = {name: each.clone() for name, each in at_start.items() if isinstance(each, Tensor)}
            first.append((module, {**then, "_buffers": {**then["_buffers"], **copies}}))
        filled = [(each, content) for each, content in self._stores if _differ(_held(each), content)]
        numbers = [(each, then) for each, then in self._plain.values() if not _alike(each, then)]
        with standing_in(first, filled, numbers):
            yield

    @contextlib.contextmanager
    def without_batch_statistics(self) -> Iterator[None]:
        """Inside, layers that are known to look at the whole batch normalise by fixed numbers instead."""
        fixed = []
        for module in (each for each in self.modules if isinstance(each, BATCH_STATISTICS)):
            buffers = dict(module._buffers)
            if module.running_mean is None:  # then it looks at the batch in evaluation mode too
                like = torch.zeros(module.num_features, dtype=self.leaves[0].dtype, device=self.leaves[0].device)
                buffers |= {"running_mean": like, "running_var": like + 1}
            fixed.append((module, {**vars(module), "training": False, "_buffers": buffers}))
        with standing_in(fixed):
            yield

    @property
    def looks_at_batches(self) -> bool:
        """Whether a layer is known to look at the whole batch."""
        return any(isinstance(each, BATCH_STATISTICS) for each in self.modules)

    def changed_buffers(self) -> list[str]:
        """Names of buffers and frozen parameters that computing has changed; no running statistics of a BatchNorm."""
        changed = [key for key, now in self._constants().items() if not _alike(now, self._start.get(key))]
        return [f"{type(self.modules[place]).__name__}.{name}" for place, name in changed]

    def padding(self) -> list[Tensor]:
        """The rows of our embeddings that stand for padding, which training never moves."""
        ours = {id(p): leaf for p, leaf in zip(self.originals, self.leaves, strict=True)}
        found = []
        for module, own in zip(self.modules, self._original, strict=True):
            leaf = ours.get(id(own["_parameters"].get("weight")))
            row: Any = getattr(module, "padding_idx", None)
            if leaf is not None and isinstance(row, int):
                found.append(leaf.detach()[row])
        return found

    def changed_outside(self) -> str:
        """What of the user's own modules is another than at the start, but for trained numbers; "" where nothing is."""
        for place, where, name, then, mark in self._fixed:
            now = where.get(name)
            same = (now is then or (isinstance(now, PLAIN) and now == then)) and _mark(now) == mark
            if not same and not self._moves_itself(place, name) and not self._has_the_numbers(place, name, now, then):
                return f"{type(self.modules[place]).__name__}.{name}"
        return ""

    def _moves_itself(self, place: int, name: str) -> bool:
        """Whether computing changes an attribute or a buffer of ours, as a counter: then theirs may have been, too."""
        ours, first = self._inner[place][1], self._first[place]
        now, then = ((each if name in each else each["_buffers"]).get(name) for each in (ours, first))
        kept = self._start.get((place, name))
        if now is then and isinstance(now, Tensor) and isinstance(kept, Tensor):
            return not _alike(now, kept)
        return now is not then and not (isinstance(now, PLAIN) and now == then)

    def _has_the_numbers(self, place: int, name: str, now: object, then: object) -> bool:
        """Whether a tensor that is not trained was written to and holds the numbers of the start all the same."""
        own = self._start.get((place, name))
        if now is not then or not isinstance(now, Tensor) or now.requires_grad or own is None:
            return False
        ours = self._inner[place][1]
        kind = {**ours["_parameters"], **ours["_buffers"]}[name].dtype
        return _alike(now.detach().to(kind), own) if isinstance(own, Tensor) else fingerprint(now.to(kind)) == own

    def _described(self, *, modes: bool) -> Iterator[tuple[int, dict[str, Any], str, object, object]]:
        """What the user's own modules compute by, and where: attributes, modes, modules, weights and buffers."""
        for place, (module, own) in enumerate(zip(self.modules, self._original, strict=True)):
            left_out = () if modes else ("training",)  # which is set for the measurement
            plain = [name for name, each in own.items() if isinstance(each, PLAIN) and name not in left_out]
            buffers = {} if isinstance(module, BATCH_STATISTICS) else own["_buffers"]
            held = [(each, each) for each in (own["_modules"], own["_parameters"], buffers)]
            for where, names in [(own, plain), *held]:
                for name in names:
                    yield place, where, name, where[name], _mark(where[name])

    def require_separate_buffers(self) -> None:
        """Raise ObjectiveError when a buffer has changed that shares memory with another, which ours do not."""
        for name in self.changed_buffers():
            if name in self._views:
                raise ObjectiveError(
                    f"the buffer {name} shares memory with {self._views[name]} and is changed while the loss is "
                    f"computed, where copies of the two would part; use one of them"
                )

    def noted(self) -> dict[str, tuple[Tensor, bool]]:
        """The user's own buffers and tensors among attributes, by name, and whether ours have changed since."""
        found = {}
        places = zip(self._inner, self._original, self._first, strict=True)
        for place, ((module, now), attributes, first) in enumerate(places):
            buffers = {} if isinstance(module, BATCH_STATISTICS) else attributes["_buffers"]
            for name, own in (*buffers.items(), *attributes.items()):
                if isinstance(own, Tensor) and own.is_leaf:
                    buffer = name in buffers
                    ours = (now["_buffers"] if buffer else now).get(name)
                    kept = self._plain.get(id(first.get(name)), (None, None))[1]
                    then = self._start.get((place, name)) if buffer else kept
                    changed = ours is not None and then is not None and not _alike(ours, then)
                    found[f"{place} {type(module).__name__}.{name}"] = own, changed
        return found

    def _constants(self) -> dict[tuple[int, str], Tensor | int]:
        """Copies of buffers, but for BatchNorm's; of parameters that are not trained what tells whether they changed.

        Copies of those would be as large as they are.
        """
        buffers: dict[tuple[int, str], Tensor | int] = {}
        frozen: dict[tuple[int, str], Tensor | int] = {}
        for place, (module, own) in enumerate(self._inner):
            for name, each in own["_buffers"].items():
                if each is not None and not isinstance(module, BATCH_STATISTICS):
                    buffers[place, name] = each.detach().clone()
            for name, p in own["_parameters"].items():
                if p is not None and not p.requires_grad and not p.is_meta:
                    frozen[place, name] = fingerprint(p)
        return {**buffers, **frozen}


PLAIN = (bool, int, float, str)


def _mark(value: object) -> object:
    """What tells whether a tensor is trained, and whether one that is not was written to."""
    if not isinstance(value, Tensor):
        return None
    return "trained" if value.requires_grad else "inference" if value.is_inference() else value._version


def _all_modules(model: nn.Module, beside: Sequence[Any]) -> list[nn.Module]:
    """The model's modules, each once, and those of modules beside it or that it refers to."""
    others = [each for each in (*beside, *reachable([model])) if isinstance(each, nn.Module)]
    # By their ids throughout: a module's hash may be of what it holds (torchmetrics), which changes inside.
    found = {id(each): each for module in (model, *others) for each in module.modules()}
    within = {id(each) for each in model.modules()}
    return [each for number, each in found.items() if number in within or not _is_frozen_script(each)]


def _is_frozen_script(module: nn.Module) -> bool:
    """Whether it is a scripted module that computes the same each time, such as a perceptual loss's network."""
    scripted = isinstance(module, torch.jit.ScriptModule) and not module.training
    return scripted and not any(p.requires_grad for p in module.parameters())


def _refuse(model: nn.Module, modules: Sequence[nn.Module], norm_mode: NormMode) -> None:
    """Raise ObjectiveError for modules and parameters that cannot be measured, by name."""
    _refuse_modes(model, norm_mode)
    for name, buffer in model.named_buffers():
        if buffer.requires_grad:
            raise ObjectiveError(
                f"the buffer {name} requires a gradient and is no parameter of the model; make it an nn.Parameter, or "
                f"detach it"
            )
    for module in modules:
        if filled := [name for name in slots(module) if not isinstance(getattr(module, name), (*PLAIN, type(None)))]:
            raise ObjectiveError(
                f"{type(module).__name__} keeps {filled[0]} in __slots__, which cannot be put back afterwards; let "
                f"it be an ordinary attribute"
            )
    everywhere = nn.modules.module._global_backward_hooks or nn.modules.module._global_backward_pre_hooks
    for module in modules:
        if everywhere or module._backward_hooks or module._backward_pre_hooks:
            raise ObjectiveError(
                f"{type(module).__name__} has a backward hook, which may change gradients, chunk by chunk; remove it "
                f"for the measurement (the handle's remove())"
            )
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ObjectiveError("a scripted module keeps its parameters where they cannot be moved; give the eager module")
    device = next((p.device for _, p in model.named_parameters()), torch.device("cpu"))
    for name, parameter in model.named_parameters():
        _refuse_parameter(name, parameter, device)
        if parameter.requires_grad:
            _refuse_trained(name, parameter)
    for name, module in model.named_modules():
        if isinstance(module, LazyModuleMixin) and hasattr(module, "_initialize_hook"):
            raise ObjectiveError(
                f"{name} ({type(module).__name__}) has not run yet, and becomes another module when it does; run the "
                f"model once on a batch"
            )
    _refuse_shared_memory(model)


def _refuse_parameter(name: str, parameter: nn.Parameter, device: torch.device) -> None:
    """Raise ObjectiveError for a parameter without values, or that is elsewhere."""
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ObjectiveError(f"the parameter {name} has no shape yet; run the model once on a batch")
    if parameter.device != device or parameter.is_meta:
        raise ObjectiveError(
            f"the parameter {name} is on {parameter.device}; all must have values on one device, so load them or "
            f"move the model (model.to(device))"
        )
    if parameter.device.type not in ("cpu", "cuda"):
        raise ObjectiveError(
            f"the parameter {name} is on {parameter.device}, where float64 and its generator are out of reach; "
            f"move the model to the CPU or a CUDA device (model.cpu())"
        )


def _refuse_trained(name: str, parameter: nn.Parameter) -> None:
    """Raise ObjectiveError for a trained parameter that is no part of a vector of real numbers."""
    if parameter.layout != torch.strided:
        raise ObjectiveError(
            f"the parameter {name} is {str(parameter.layout).removeprefix('torch.')}, which cannot be a part of a "
            f"flat vector; hold its values as a dense parameter and make the sparse tensor of them in forward"
        )
    if hasattr(parameter, "__tensor_flatten__"):
        raise ObjectiveError(
            f"the parameter {name} is a {type(parameter).__name__}, which has its numbers elsewhere (sharded or "
            f"quantised); give the plain model (unshard it, parameter.full_tensor())"
        )
    if parameter.is_complex():
        raise ObjectiveError(
            f"the parameter {name} is complex, and smoothness is defined for real ones; hold its real and "
            f"imaginary parts as a real parameter (torch.view_as_real)"
        )
    if parameter.is_floating_point() and parameter.element_size() < 2:
        raise ObjectiveError(
            f"the parameter {name} is of {parameter.dtype}, in which no gradient can be summed; train and measure "
            f"it in a wider precision (model.float())"
        )
    if parameter._backward_hooks:
        raise ObjectiveError(
            f"the parameter {name} has a hook that may change its gradient, chunk by chunk; remove it for the "
            f"measurement (the handle's remove())"
        )


def _set_mode(model: nn.Module, *, training: bool) -> None:
    """Put a model in training or evaluation mode; raises ObjectiveError when it has no way of that."""
    try:
        model.train(training)
    except Exception as error:
        raise ObjectiveError(
            f"{type(model).__name__}.train({training}) failed ({error!r}); put the model in the mode that is meant and "
            f"give norm_mode='as is'"
        ) from error


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
        within = {id(other) for other in module.modules()}
        attributes = [pair for pair in vars(module).items() if pair[0] not in ("_parameters", "_buffers", "_modules")]
        for name, value in (*module._parameters.items(), *module._buffers.items(), *attributes):
            for each in reachable([value], within, code=False):
                if isinstance(each, Tensor) and each.grad_fn is None:
                    found.setdefault(id(each), (f"{prefix}.{name}".strip("."), each))
    for (first, one), (second, other) in overlapping(found.values()):
        if one.requires_grad or other.requires_grad:
            raise ObjectiveError(
                f"{first} and {second} share memory without being one parameter, so moving one would leave the other "
                f"behind; assign the parameter itself (a.weight = b.weight), or copy; where a hook computes one from "
                f"the other (torch.nn.utils.spectral_norm), run the model once on a batch"
            )


def _views_among_buffers(modules: Sequence[nn.Module]) -> dict[str, str]:
    """Buffers' names to those of tensors that share their memory without being the same one."""
    found: dict[int, tuple[str, Tensor]] = {}
    for module in modules:
        own = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
        for name, tensor in (*module._buffers.items(), *own.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (f"{type(module).__name__}.{name}", tensor))
    pairs = [(first, second) for (first, _), (second, _) in overlapping(found.values())]
    return {second: first for first, second in pairs} | dict(pairs)


def _replaced(modules: Sequence[nn.Module], dtype: torch.dtype | None, *, theirs: bool) -> dict[Tensor, Tensor]:
    """Modules' parameters and buffers to tensors of ours; ``theirs`` keeps the trained ones."""
    replaced: dict[Tensor, Tensor] = {}
    for module in modules:
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor not in replaced:
                replaced[tensor] = tensor if theirs and tensor.requires_grad else _own(tensor, dtype)
    return replaced


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of our own with these values, of the same kind: a leaf where it is trained."""
    with torch.inference_mode(False), torch.no_grad():
        own = tensor.detach().to(in_precision(tensor, dtype), copy=True)
        if isinstance(tensor, nn.Parameter):
            own = torch.Tensor._make_subclass(type(tensor), own, tensor.requires_grad)
    return own


def in_precision(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype that a tensor gets where computing is done in ``dtype``; None where it keeps its own."""
    if tensor.is_complex() and dtype is not None:
        return dtype.to_complex()
    return dtype if tensor.is_floating_point() else None


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy, or the value itself where it has none (a lock, an open file), which then everybody shares."""
    if isinstance(value, Rng | bool | int | float | str | type(None) | type):
        return value
    settled = len(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        for key in list(memo)[settled:]:  # what was copied half-way
            del memo[key]
        return _copied_in_parts(value, memo)


def _copied_in_parts(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of an object, part by part; a part that cannot be copied is shared."""
    if id(value) in memo:
        return memo[id(value)]
    if _runs(value) or _ends(value):
        return value
    found: Any
    if isinstance(value, tuple):  # the same one where nothing in it has a copy
        parts = [copied(each, memo) for each in value]
        if any(part is not each for part, each in zip(parts, value, strict=True)):
            value = memo[id(value)] = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return value
    try:
        found = memo[id(value)] = value if isinstance(value, Tensor) else copy.copy(value)
    except Exception:
        found = memo[id(value)] = value
    if found is value:
        return value
    if isinstance(value, STORES):
        _fill(found, _mapped(_content(value), memo))
    for name in slots(value):
        object.__setattr__(found, name, copied(getattr(value, name), memo))
    found_own = getattr(found, "__dict__", {})
    found_own.update({name: copied(each, memo) for name, each in found_own.items()})
    return found


def slots(value: Any) -> list[str]:
    """Names of an object's slots that hold something."""
    return [each for each in _slots(type(value)) if hasattr(value, each)]  # type: ignore[arg-type]


@functools.lru_cache(2**16)
def _slots(kind: Any) -> list[str]:
    """Names of the slots of a class and its bases, but for those that a property has taken the place of."""
    named = [vars(each).get("__slots__", ()) for each in kind.__mro__]
    names = [name for each in named for name in ([each] if isinstance(each, str) else each)]
    return [name for name in names if isinstance(inspect.getattr_static(kind, name, None), types.MemberDescriptorType)]


STORES = (dict, list, set, deque)  # what holds other objects and can be emptied and filled


def _has_state(value: Any) -> bool:
    """Whether an object holds what may change: one of STORES, or one with attributes of its own."""
    if isinstance(value, STORES):
        return True
    if isinstance(value, FIXED | functools.partial) or not hasattr(value, "__dict__") or _runs(value):
        return False
    with contextlib.suppress(Exception):
        return _ends(value) or copy.copy(value) is not value  # a logger is there once
    return True


def _runs(value: Any) -> bool:
    """Whether threads or processes meet in an object (queues, events, threads): a copy would wait for nobody."""
    return _meets(type(value))  # type: ignore[arg-type]


@functools.lru_cache(2**16)
def _meets(kind: Any) -> bool:
    return any(each.__module__.partition(".")[0] in MEETING for each in kind.__mro__)


LARGEST_COUNTER = 1_000  # numbers that a tensor or an array may have to be looked at for what has been counted
LARGEST_CACHE = 1_000_000  # numbers that a tensor or an array may have to be looked at for a cache of weights
MEETING = (
    *("threading", "_thread", "queue", "_queue", "multiprocessing", "concurrent", "asyncio", "subprocess", "socket"),
)
"""Modules of what threads and processes meet in."""


def is_own_attributes(value: Any) -> bool:
    """Whether a dict is its own ``__dict__`` (``self.__dict__ = self``), which a copy of it would not be."""
    return getattr(value, "__dict__", None) is value


def _ends(value: Any) -> bool:
    """Whether an object closes something when it is gone, which a copy would close for it."""
    return hasattr(type(value), "__del__")


def _may_keep(value: Any) -> bool:
    """Whether an object that is no module may keep something: entries, attributes, or what a function binds anew."""
    if isinstance(value, types.FunctionType):
        return bool(_bound(value))
    own = isinstance(getattr(value, "__dict__", None), dict) or slots(value)
    return isinstance(value, STORES) or bool(own and not isinstance(value, FIXED) and not _runs(value))


def _bound(function: types.FunctionType) -> dict[str | int, Any]:
    """What a function's global names and its closure are bound to, where it binds such names anew."""
    found: dict[str | int, Any] = {}
    if _foreign(str(function.__globals__.get("__name__"))):
        return found
    for code in _codes(function.__code__):
        if dis.opmap["STORE_GLOBAL"] in code.co_code[::2]:
            found |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    if dis.opmap["STORE_DEREF"] in function.__code__.co_code[::2]:
        for place, cell in enumerate(function.__closure__ or ()):
            with contextlib.suppress(ValueError):  # a cell that is still empty
                found[place] = cell.cell_contents
    return found


def _held(value: Any) -> Any:
    """What an object holds, a level down."""
    if isinstance(value, types.FunctionType):
        return _bound(value)
    if isinstance(value, dict):  # as it is stored: a subclass may give something else than it holds
        order = OrderedDict.keys(value) if isinstance(value, OrderedDict) else dict.keys(value)
        return {key: dict.__getitem__(value, key) for key in order}
    if isinstance(value, STORES):
        return value
    slotted = {name: getattr(value, name) for name in slots(value)}
    return {**getattr(value, "__dict__", {}), **slotted} if slotted else vars(value)


def _content(value: Any) -> Any:
    """The same in a copy, to be put back by _fill."""
    held = _held(value)
    return dict(held) if isinstance(held, dict) else set(held) if isinstance(held, set) else list(held)


def _differ(now: Any, first: Any) -> bool:
    """Whether contents are not the same objects in the same places; in sets, equal ones."""
    if len(now) != len(first) or isinstance(now, set):
        return len(now) != len(first) or now != set(first)
    if isinstance(now, dict):
        return any(key not in first or first[key] is not each for key, each in now.items())
    return any(one is not other for one, other in zip(now, first, strict=True))


def _mapped(content: Any, memo: dict[int, Any]) -> Any:
    """Contents with copies in them."""
    if isinstance(content, dict):
        return {key: copied(each, memo) for key, each in content.items()}
    return type(content)(copied(each, memo) for each in content)


def _fill(value: Any, content: Any) -> None:
    """Let an object hold this and nothing else."""
    if isinstance(value, types.FunctionType):
        for name, each in content.items():
            if isinstance(name, str):
                value.__globals__[name] = each
            else:
                value.__closure__[name].cell_contents = each  # type: ignore[index]
    elif isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        kind.clear(value)
        for key, each in content.items():
            kind.__setitem__(value, key, each)
    elif isinstance(value, STORES):
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(content)  # type: ignore[union-attr]
    else:
        slotted = {*_slots(type(value))}  # type: ignore[arg-type]
        for name in {*slots(value)} - content.keys():
            object.__delattr__(value, name)
        for name in slotted & content.keys():
            object.__setattr__(value, name, content[name])
        if hasattr(value, "__dict__"):
            vars(value).clear()
            vars(value).update({name: each for name, each in content.items() if name not in slotted})


@contextlib.contextmanager
def standing_in(
    attributes: Sequence[tuple[Any, dict[str, Any]]],
    contents: Sequence[tuple[Any, Any]] = (),
    numbers: Sequence[tuple[Any, Any]] = (),
) -> Iterator[None]:
    """Inside, objects have these attributes, containers these contents, tensors and arrays these numbers."""
    before = [(each, vars(each)) for each, _ in attributes]
    held = [(each, _content(each)) for each, _ in contents]
    written = [(each, copy.deepcopy(each)) for each, _ in numbers]
    try:
        _put(attributes, contents, numbers)
        yield
    finally:
        _put(before, held, written)


def _put(attributes: Sequence[Any], contents: Sequence[Any], numbers: Sequence[Any]) -> None:
    for each, own in attributes:
        object.__setattr__(each, "__dict__", own)
    for each, content in contents:
        _fill(each, content)
    for each, values in numbers:
        if isinstance(each, Tensor):
            with torch.no_grad():
                each.copy_(values)
        else:
            each[...] = values


def _size(value: Tensor | np.ndarray[Any, Any]) -> float:
    """How many numbers there are, where they are numbers that can be read and compared; else infinitely many."""
    if isinstance(value, Tensor):
        plain = not value.is_nested and value.layout in (torch.strided, torch.sparse_coo)
        return math.prod(value.shape) if plain else math.inf
    return math.inf if value.dtype == object else math.prod(value.shape)


def lent(objects: Sequence[Any], kept: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """Inside, objects work on copies of their attributes, except ``kept``; afterwards they have the originals again."""
    memo = {id(each): each for each in (*objects, *kept)}
    mine = [(each, vars(each)) for each in objects if hasattr(each, "__dict__")]
    return standing_in([(each, {name: copied(value, memo) for name, value in own.items()}) for each, own in mine])


def _alike(first: Any, second: Any) -> bool:
    """Whether tensors, arrays or whole numbers are the same, with NaN where the other has it; nothing is like None."""
    if not isinstance(first, Tensor):
        return bool(np.array_equal(first, second))
    if second is None or first.shape != second.shape or first.layout != second.layout:
        return False
    if first.is_meta or second.is_meta:  # no numbers at all
        return first.is_meta and second.is_meta
    if first.layout != torch.strided:
        first, second = first.to_dense(), second.to_dense()
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())


Rng = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
Ways = tuple[Callable[[], Any], Callable[[Any], Any]]  # to read a state, and to put it back
FUNCTIONS = types.FunctionType | types.MethodType | types.BuiltinFunctionType
FIXED = nn.Module | Tensor | Rng | type | FUNCTIONS | types.ModuleType  # whose attributes are not looked at here


class Randomness:
    """Which random generators move while something is computed; afterwards all are as they were.

    Watched are the default generators of torch, numpy and Python, and those that ``holders`` (modules, functions, data
    sets) keep among their attributes, in their closures or as arguments.
    """

    def __init__(self, holders: Sequence[Any] = ()) -> None:
        self.moved: list[str] = []
        self._own = [each for each in reachable(holders) if isinstance(each, Rng)]
        if any(isinstance(each, random.SystemRandom) for each in self._own):
            raise ObjectiveError(
                "the model, the loss or the data set holds a random.SystemRandom, whose draws nobody can see or "
                "repeat; take it away for the measurement"
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the generators, and put them back."""
        ways = self._ways()
        before = {name: read() for name, (read, _) in ways.items()}
        try:
            yield
        finally:
            self.moved += [name for name, (read, _) in ways.items() if not _same(before[name], read())]
            for name, (_, write) in ways.items():
                write(before[name])

    def _ways(self) -> dict[str, Ways]:
        """How the state of each generator is read, in a copy, and put back."""
        found: dict[str, Ways] = {
            "torch": (torch.get_rng_state, torch.set_rng_state),
            "numpy": (np.random.get_state, np.random.set_state),
            "Python's random": (random.getstate, random.setstate),
        }
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            found["torch.cuda"] = torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
        for place, each in enumerate(self._own, 1):
            found[f"a {type(each).__name__} of its own ({place})"] = _ways_of(each)
        return found


def _ways_of(generator: Any) -> Ways:
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return lambda: copy.deepcopy(bits.state), functools.partial(setattr, bits, "state")
    if isinstance(generator, random.Random):
        return generator.getstate, generator.setstate
    return generator.get_state, generator.set_state


MOST, MOST_ENTRIES = 100_000, 100
"""So many objects are looked through at most, those that are nearest first, and so many entries of each."""


def reachable(holders: Iterable[Any], alone: Collection[int] = (), *, code: bool = True) -> Iterator[Any]:
    """What can be reached from objects: attributes, elements, keys, closures, globals they name; no text, no module.

    What is within objects whose ids are in ``alone`` is left out, and without ``code`` what is within functions, of
    which there are no copies.
    """
    seen, todo = set[int](), deque(holders)
    while todo:
        if len(seen) >= MOST:
            raise ObjectiveError(
                f"the model, the loss or the data set refers to more than {MOST:,} objects, too many to look for "
                f"generators, modules and counters among them; hold what they do not need elsewhere"
            )
        value = todo.popleft()
        if id(value) in seen or isinstance(value, UNSEEN):
            continue
        yield value
        if type(value) is int or (type(value) in EMPTY and not value):
            continue
        seen.add(id(value))
        closed = id(value) in alone or _is_closed(type(value))  # type: ignore[arg-type]
        if not closed and (code or not isinstance(value, types.FunctionType)):
            todo += _within(value)


ARRAYS, NO_COUNTERS = (np.ndarray, Tensor), (int, *get_args(Rng))
UNSEEN = (str, bytes, float, types.ModuleType)
BOUND = (types.MethodType, types.BuiltinFunctionType, staticmethod, classmethod, property, functools.cached_property)
EMPTY = (dict, list, set, OrderedDict)  # of which every module has a dozen


@functools.lru_cache(2**16)
def _is_closed(kind: Any) -> bool:
    """Whether the search leaves out what objects of this type hold."""
    return issubclass(kind, (int, np.ndarray, Tensor, *get_args(Rng))) or _meets(kind)


def counts(holders: Iterable[Any]) -> list[str]:
    """Numbers, texts, lengths and small arrays that objects hold: others when something has been counted or noted."""
    found: list[Any] = []
    for value in reachable(holders):
        if isinstance(value, ARRAYS):
            if not isinstance(value, nn.Parameter) and _size(value) <= LARGEST_COUNTER:
                found.append(_told(value))
        elif issubclass(type(value), Iterator) and not isinstance(value, io.IOBase):
            found.append(object())  # nobody can see where it is, so it is taken for another
        elif not isinstance(value, NO_COUNTERS):
            length = len(value) if isinstance(value, STORES) else 0
            found.append(repr((length, [each for each in _within(value) if isinstance(each, int | float | str)])))
    return found


def _told(value: Tensor | np.ndarray[Any, Any]) -> str:
    """What tells a tensor's or an array's numbers from others, where they can be read."""
    with contextlib.suppress(Exception):  # of sparse or quantised ones
        if value.dtype == object:
            return ""
        return repr(fingerprint(value) if isinstance(value, Tensor) else hash(value.tobytes()))
    return ""


def _within(value: Any) -> list[Any]:  # noqa: PLR0911  a kind a line
    """What an object holds, a level down."""
    if isinstance(value, dict | types.MappingProxyType):  # other mappings have theirs among their attributes
        pairs = dict.items(value) if isinstance(value, dict) else value.items()
        return [*(each for pair in itertools.islice(pairs, MOST_ENTRIES) for each in pair), *_attributes(value)]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [*itertools.islice(value, MOST_ENTRIES), *_attributes(value)]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, BOUND):  # also random.Random(0).random
        return [getattr(value, name) for name in ("__self__", "__func__", "fget", "func") if hasattr(value, name)]
    if isinstance(value, types.FunctionType):
        foreign = _foreign(str(value.__globals__.get("__name__")))  # what it names is not the user's
        codes = [] if foreign else [*_codes(value.__code__)]
        names = [name for code in codes for name in code.co_names]
        found = [value.__globals__.get(name) for code in codes for name in _globals(code)]
        modules = [each for each in found if isinstance(each, types.ModuleType)]
        for module in modules:  # and modules in them
            within = [] if _foreign(module.__name__) else [vars(module).get(name) for name in names]
            modules += [each for each in within if isinstance(each, types.ModuleType) and each not in modules]
            found += within
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is still empty
                found.append(cell.cell_contents)
        return [*found, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *vars(value).values()]
    if isinstance(value, weakref.ref):
        return [value()]
    own = [] if isinstance(value, type) else list(getattr(value, "__dict__", {}).items())
    kinds = (value if isinstance(value, type) else type(value)).__mro__
    for kind in kinds:
        if not _foreign(kind.__module__):
            own += [(name, each) for name, each in vars(kind).items() if name[:2] != "__" or callable(each)]
    own += [] if isinstance(value, type) else [(name, getattr(value, name)) for name in slots(value)]
    return [each for name, each in own if name not in ("_parameters", "_buffers", "__class__")]


@functools.lru_cache(2**16)
def _globals(code: types.CodeType) -> tuple[str, ...]:
    """The globals that code loads, without those (``@...``) that pytest adds to test code."""
    named = {
        each.argval for each in dis.get_instructions(code) if "GLOBAL" in each.opname or each.opname == "LOAD_NAME"
    }
    return tuple(name for name in code.co_names if name in named and name[:1] != "@")


def _attributes(value: Any) -> list[dict[str, Any]]:
    """The dictionary of a container's attributes: where a UserDict or a cache has its entries."""
    return [own] if isinstance(own := getattr(value, "__dict__", None), dict) else []


def _foreign(module: str) -> bool:
    """Whether a module is Python's own or torch's, which keep nothing of the user's."""
    top = module.partition(".")[0]
    return top in ("torch", "numpy") or top in sys.stdlib_module_names


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _same(first: Any, second: Any) -> bool:
    """Whether states of a generator are the same."""
    if isinstance(first, ARRAYS):
        return _alike(first, second)
    if isinstance(first, dict):
        return all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and any(isinstance(each, ARRAYS) for each in first):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)  # of Python's random: 625 numbers

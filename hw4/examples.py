"""Examples as users hold them, in tensors or behind a data loader, given out in pieces and drawn at random.

Examples are counted by what is asked for, never by what comes out: a batch's tensors may have any shape.
"""

import copy
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from hw4.borrowed import MOST_ENTRIES, Randomness, copied, in_precision, is_own_attributes, lent, reachable, slots
from hw4.errors import ObjectiveError, first_line

Batch = Any  # what a data loader gives, or a pair of inputs and targets
Place = tuple[torch.device, torch.dtype | None]
"""Where floating-point examples go, and in which precision (None: their own)."""


class Examples:
    """All examples of an objective: ``n`` of them, in pieces of at most ``chunk_size``.

    ``plan`` lists the indices of every piece, ``place`` says on which device and in which precision batches are given.
    """

    def __init__(
        self,
        plan: Sequence[Sequence[int]],
        fetch: Callable[[Sequence[int]], Batch],
        place: Place,
        chunk_size: int | None = None,
    ) -> None:
        self.plan, self._fetch, self._place = plan, fetch, place
        self.n = sum(map(len, plan))
        self.chunk_size = chunk_size or max(map(len, plan), default=0)
        if self.n == 0:
            raise ValueError("inputs and targets must be equally many and at least one, got 0 and 0")

    def in_precision(self, dtype: torch.dtype | None) -> "Examples":
        """The same examples, given in another precision."""
        found = copy.copy(self)
        found._place = (self._place[0], dtype)
        return found

    def take(self, indices: Sequence[int]) -> Batch:
        """The batch of these examples."""
        return placed(self._fetch(indices), *self._place)

    def pieces(self, *, reordered: bool = False) -> Iterator[tuple[Batch, int]]:
        """All pieces with their numbers of examples; ``reordered`` goes backwards and shuffles within each."""
        generator = torch.Generator().manual_seed(0)
        for indices in reversed(self.plan) if reordered else self.plan:
            order = torch.randperm(len(indices), generator=generator, device="cpu").tolist() if reordered else None
            yield self.take(indices if order is None else [indices[place] for place in order]), len(indices)


def of_tensors(x: Any, y: Any, chunk_size: int, place: Place) -> Examples:
    """Examples held in tensors, or in dicts, lists and tuples of tensors, that are equally long."""
    if any(each.layout not in (torch.strided, torch.sparse_coo) for each in tensors((x, y)) if not each.is_nested):
        raise ObjectiveError(
            "x or y is a tensor whose rows cannot be drawn by their numbers (CSR and its like); give x.to_sparse_coo() "
            "or x.to_dense()"
        )
    if any(each.is_nested for each in tensors((x, y))):
        raise ObjectiveError("x or y is a nested tensor, which cannot be cut by example; give a Dataset of its parts")
    lengths = [len(each) if each.ndim else 0 for each in tensors((x, y))]
    n = lengths[0]
    if any(length != n for length in lengths) or n == 0:
        counts = " and ".join(map(str, lengths[:4]))
        if any(not each.ndim for each in tensors((x, y))):
            counts += "; a tensor of no dimensions cannot be cut, so give a number, or one for each example"
        if isinstance(x, list | tuple):
            counts += f"; each part of a {type(x).__name__} is cut by example, and torch.stack makes one of them"
        raise ValueError(f"inputs and targets must be equally many and at least one, got {counts}")
    lists = (each for each in walked((x, y)) if isinstance(each, list | tuple) and not list(tensors(each)))
    if n > 1 and any(len(each) == n for each in lists):
        raise ObjectiveError(
            f"x or y holds a list of {n} things that are no tensors, which cannot be cut by example with the others; "
            f"make a tensor of it (torch.as_tensor), or give a Dataset"
        )
    parts = torch.arange(n, device="cpu").tensor_split(math.ceil(n / chunk_size))
    dense = all(each.layout == torch.strided for each in tensors((x, y)))

    def fetch(indices: Sequence[int]) -> Batch:
        if dense and isinstance(indices, range) and indices.step == 1:  # a view
            return tuple(mapped(each, lambda t: t[indices.start : indices.stop]) for each in (x, y))
        chosen = torch.tensor(indices, device="cpu")
        return tuple(mapped(each, lambda t: t.index_select(0, chosen.to(t.device))) for each in (x, y))

    plan = [range(int(part[0]), int(part[-1]) + 1) for part in parts]
    return Examples(plan, fetch, place, chunk_size)


def of_loader(loader: Any, place: Place) -> Examples:
    """Examples of a data loader, in its batches, by its own sampler and way of collating, read in this process."""
    _refuse_loader(loader)
    plan = _plan(loader)
    name = _sampler(loader)
    dataset, collate = loader.dataset, loader.collate_fn
    counts = Counter(index for batch in plan for index in batch)
    dropped, times = len(dataset) - len(counts), max(counts.values(), default=0)
    size = getattr(loader.batch_sampler, "batch_size", loader.batch_size) or 0
    if 0 < dropped < size and getattr(loader.batch_sampler, "drop_last", loader.drop_last) and times < 2:
        raise ObjectiveError(
            f"the data loader drops the last {dropped} of {len(dataset)} examples; give one with drop_last=False"
        )
    if dropped or times > 1:
        raise ObjectiveError(
            f"the data loader's {name} gives {len(counts)} of {len(dataset)} examples"
            f"{f', one of them {times} times' * (times > 1)}; give one that goes through a torch.utils.data.Subset once"
        )

    def fetch(indices: Sequence[int]) -> Batch:
        many = getattr(dataset, "__getitems__", None)
        try:
            found = many(list(indices)) if many else [dataset[index] for index in indices]
        except Exception as error:
            if not loader.num_workers:
                raise
            raise ObjectiveError(
                f"the data set is read in this process, without workers, where it failed ({type(error).__name__}: "
                f"{first_line(error)}); let __getitem__ open what worker_init_fn opens"
            ) from error
        try:  # with copies of their containers: a collate_fn that takes something out must not take it from the data
            own = [each.copy() if type(each) in (dict, list) else each for each in found]
            return collate(own if type(found) is list else found)
        except Exception as error:
            raise ObjectiveError(
                f"{len(found)} examples cannot be put together in a batch ({type(error).__name__}: "
                f"{first_line(error)}); examples from all over the data are, as SGD draws: give a DataLoader whose "
                f"collate_fn pads or lists what differs in shape"
            ) from error

    return Examples(plan, fetch, place)


def _plan(loader: DataLoader[Any]) -> list[list[int]]:
    """The indices of every batch; raises ObjectiveError when they are others the next time."""
    assert loader.batch_sampler is not None
    samplers = [loader.sampler, loader.batch_sampler]
    with Randomness([loader, loader.sampler]).watched(), lent(samplers, [loader, loader.dataset]):
        plan, again = (_indices(loader) for _ in range(2))
    if plan != again:
        raise ObjectiveError(
            f"the data loader draws its examples by {_sampler(loader)}, so two gradients would not be over the same "
            f"batches; give one {_without(loader)}"
        )
    return plan


def _without(loader: DataLoader[Any]) -> str:
    """How a loader goes through the same examples in an order that stays."""
    if isinstance(_drawing(loader), RandomSampler | SequentialSampler):
        return "with shuffle=False, or a SequentialSampler"
    return "over torch.utils.data.Subset(dataset, indices) without a sampler, for it may draw from a part of the data"


def _indices(loader: DataLoader[Any]) -> list[list[int]]:
    """The indices of every batch, this time."""
    assert loader.batch_sampler is not None
    n, drawn = len(loader.dataset), 0  # type: ignore[arg-type]
    found: list[list[int]] = []
    try:
        for batch in loader.batch_sampler:
            found.append([operator.index(each) for each in batch])
            drawn += len(found[-1])
            if drawn > n:  # then some come twice, if it ends at all
                break
    except TypeError as error:
        raise ObjectiveError(
            f"the data loader's {_sampler(loader)} gives something else than whole numbers; number the examples"
        ) from error
    if not all(found) or any(not 0 <= each < n for batch in found for each in batch):
        raise ObjectiveError(
            f"the data loader's {_sampler(loader)} gives an empty batch, or an index outside 0 to {n - 1}; mend it"
        )
    return found


def _sampler(loader: DataLoader[Any]) -> str:
    """The type of the sampler that a loader uses."""
    return type(_drawing(loader)).__name__


def _drawing(loader: DataLoader[Any]) -> Any:
    """The sampler that a loader uses; torch gives one with a batch_sampler a second, unused one."""
    return getattr(loader.batch_sampler, "sampler", loader.batch_sampler)


def _refuse_loader(loader: Any) -> None:
    """Raise ObjectiveError for what is no data loader that can be read twice alike."""
    kind = type(loader).__name__
    if not isinstance(loader, DataLoader):
        raise ObjectiveError(
            f"x is of type {kind}, from which no example can be drawn by its number; give tensors, a torch Dataset or "
            f"a torch DataLoader (a wrapper's own, where it has one)"
        )
    ways = [getattr(type(loader), name) is getattr(DataLoader, name) for name in ("__iter__", "_get_iterator")]
    if not all(ways) or "_get_iterator" in vars(loader):
        raise ObjectiveError(
            f"the data loader {kind} has a way of iterating of its own, so nothing tells how many examples its batches "
            f"hold; give a plain torch DataLoader, whose dataset or collate_fn does the same"
        )
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__getitem__"):
        raise ObjectiveError(
            f"the data loader's {type(loader.dataset).__name__} can only be iterated, so no minibatch can be drawn "
            "from it; give a dataset with __getitem__ and __len__"
        )
    if loader.batch_sampler is None or not hasattr(loader.dataset, "__len__"):
        raise ObjectiveError(
            "the data loader must batch a dataset with indices and a length (batch_size=None leaves that to the "
            "dataset, and nothing tells how many examples its batches hold); wrap the data in one"
        )


def of_anything(x: Any, y: Any, chunk_size: int, place: Place) -> Examples:
    """Examples of whatever was given as x and y."""
    if not hasattr(chunk_size, "__index__") or chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 and whole, got {chunk_size!r}")
    loads = isinstance(x, DataLoader) or not list(tensors(x))
    if isinstance(x, np.ndarray) or (y is not None and not (loads and isinstance(x, DataLoader | Dataset))):
        _refuse_arrays(x, y)
    if loads:
        if y is not None:
            raise ValueError("a data loader holds the targets already: give x alone, or tensors x and y")
        if isinstance(x, Dataset) and not isinstance(x, IterableDataset):
            x = DataLoader(x, batch_size=chunk_size)
        return of_loader(x, place)
    if isinstance(x, list | tuple) and y is None:
        raise ObjectiveError(
            "x is a list of batches, from which no example can be drawn by its number; give tensors, a torch Dataset "
            "or a torch DataLoader, which takes a list of examples too"
        )
    if y is None:
        raise ValueError(
            "targets y are missing: give tensors x and y, or a data loader alone; where forward= needs none, give "
            "torch.utils.data.TensorDataset(x), whose batches are lists of one tensor"
        )
    return of_tensors(x, y, chunk_size, place)


def _refuse_arrays(x: Any, y: Any) -> None:
    for name, value in (("x", x), ("y", y)):
        if isinstance(value, np.ndarray):
            raise ObjectiveError(f"{name} is a numpy array; torch.as_tensor({name}) makes a tensor of it")
        if not list(tensors(value)):
            numbers = f"{name}.to_numpy()" if hasattr(value, "to_numpy") else name  # of a table
            raise ObjectiveError(
                f"{name} is of type {type(value).__name__} and holds no tensor; torch.as_tensor({numbers}) makes one"
            )


def placed(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A batch on a device, its floating-point tensors in a precision."""

    def place(each: Tensor) -> Tensor:
        own = each.detach()
        moved = own.to(device, in_precision(each, dtype))
        # What a model does to its inputs in place must not reach the user's own.
        found = moved.clone() if moved is own or moved.is_inference() else moved
        # Derivatives with respect to inputs may be taken; a part of them is no leaf, so it may be changed in place.
        return found.requires_grad_().clone() if each.requires_grad else found

    try:
        return mapped(value, place)
    except RecursionError as error:
        raise ObjectiveError(
            f"a batch holds a {type(value).__name__} that refers to itself, or lists within lists without end; give "
            f"its tensors in a dict and put it together again in forward="
        ) from error


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: PLR0911  a kind a line
    """Change every tensor of a batch, alone or inside lists, tuples and mappings, which keep their type."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return _like(value, {key: mapped(each, change) for key, each in value.items()})
    if isinstance(value, PackedSequence):
        data, indices = change(value.data), (value.sorted_indices, value.unsorted_indices)
        return PackedSequence(
            data, value.batch_sizes, *(each if each is None else each.to(data.device) for each in indices)
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(each, change) for each in value))
    if isinstance(value, list | tuple):
        try:
            return type(value)(mapped(each, change) for each in value)
        except TypeError as error:
            raise ObjectiveError(
                f"a batch holds a {type(value).__name__}, which cannot be made from its elements; return a plain "
                f"{'list' if isinstance(value, list) else 'tuple'} in collate_fn"
            ) from error
    record = hasattr(type(value), "__dataclass_fields__") or hasattr(type(value), "__attrs_attrs__")
    if not record and callable(getattr(type(value), "to", None)):  # a graph, whose tensors are somewhere inside
        held = list(reachable([value], code=False))
        if any(isinstance(each, list | tuple | dict) and _has_unseen(each) for each in held):
            raise ObjectiveError(
                f"a batch holds a {type(value).__name__} with a list or a dict of more than {MOST_ENTRIES} entries, of "
                f"which not all are looked at; give its tensors in a dict and put it together again in forward="
            )
        memo = {id(each): change(each) for each in held if isinstance(each, Tensor)}
        if not memo:
            raise ObjectiveError(
                f"a batch holds a {type(value).__name__}, whose tensors cannot be seen; give its tensors in a dict and "
                "put it together again in forward="
            )
        return copied(value, memo)
    own, slotted = getattr(value, "__dict__", {}), slots(value)
    if callable(value) or not (own or record or _hold_tensors([getattr(value, name) for name in slotted])):
        return value  # such as a fraction
    found = _copy(value)  # a dataclass, a namespace
    if own:
        found.__dict__.update({name: mapped(each, change) for name, each in own.items()})
    for name in slotted:
        object.__setattr__(found, name, mapped(getattr(value, name), change))
    return found


def _hold_tensors(held: list[Any]) -> bool:
    return any(isinstance(each, Tensor) for each in reachable(held, code=False))


def _copy(value: Any) -> Any:
    try:
        return copy.copy(value)
    except (RecursionError, KeyError):  # it looks attributes up in its own entries, which a copy has not yet
        kind: Any = type(value)
        found = kind.__new__(kind)
        vars(found).update(vars(value))
        return found


def _has_unseen(entries: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> bool:
    """Whether entries that are not looked at may hold a tensor: not words and numbers, as graphs have names."""
    rest = itertools.islice(entries.values() if isinstance(entries, dict) else entries, MOST_ENTRIES, None)
    return any(not isinstance(each, str | bytes | int | float | None) for each in rest)


def _like(value: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    """A mapping of the same type, where that takes a dict."""
    if type(value) is dict:
        return changed
    try:
        found = _copy(value)
        if is_own_attributes(value):
            found.__dict__ = found
        found.update(changed)
    except (TypeError, AttributeError) as error:
        raise ObjectiveError(
            f"a batch is a {type(value).__name__}, which cannot be made from a dict; return a dict in collate_fn"
        ) from error
    return found


def walked(value: Any) -> Iterator[Any]:
    """A batch, and everything in its mappings, lists and tuples."""
    yield value
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from walked(each)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of a batch."""
    return (each for each in walked(value) if isinstance(each, Tensor))

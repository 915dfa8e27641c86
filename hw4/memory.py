"""Which tensors lie in the same memory, which of them are read, and whether their numbers have changed."""

import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PIECE = 2**17  # so many numbers are added at a time: torch would make a wider copy of all
WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(tensor: Tensor) -> int:
    """A sum of a tensor's bits, read as whole numbers and weighted by place.

    Other numbers, and the same in another order, have another one, but for rare chances.
    """
    flat = tensor.detach()
    flat = flat if flat.layout == torch.strided else flat.to_dense()
    flat = (torch.view_as_real(flat) if flat.is_complex() else flat).reshape(-1)
    whole = flat.view(WHOLE[flat.element_size()])
    if len(whole) <= PIECE:
        return _weighted(whole)
    found = 0
    for piece in torch.split(whole, PIECE):
        found = hash((found, _weighted(piece)))
    return found


def _weighted(whole: Tensor) -> int:
    weights = _weights(len(whole), whole.device)
    wide = whole.long()
    return int(torch.dot(wide, weights) if wide.device.type == "cpu" else (wide * weights).sum())


@functools.lru_cache(64)
def _weights(n: int, device: torch.device) -> Tensor:
    """Odd numbers drawn once and for all, so that no two places count alike."""
    return _drawn()[:n].to(device)


@functools.cache
def _drawn() -> Tensor:
    with torch.inference_mode(False):
        generator = torch.Generator(device="cpu").manual_seed(0)
        return torch.randint(-(2**62), 2**62, (PIECE,), generator=generator, dtype=torch.int64, device="cpu") | 1


def extent(tensor: Tensor) -> tuple[str, int, int] | None:
    """The device, the first and the last byte of a tensor and one more; None where it has no memory of its own."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta" or not tensor.numel():
        return None
    try:
        start = tensor.data_ptr()
    except RuntimeError:  # a tensor that stands for another
        return None
    size = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return str(tensor.device), start, start + size * tensor.element_size()


def overlapping(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    """Pairs of named tensors that have memory in common."""
    spans = [(found, one) for one in named if (found := extent(one[1]))]
    reaching: list[tuple[tuple[str, int, int], tuple[str, Tensor]]] = []
    for found, one in sorted(spans, key=lambda pair: pair[0]):
        reaching = [(other, each) for other, each in reaching if other[0] == found[0] and found[1] < other[2]]
        for (_, start, end), each in reaching:
            if _meet(each[1], one[1], max(end, found[2]) - start):
                yield each, one
        reaching.append((found, one))


def _meet(first: Tensor, second: Tensor, length: int) -> bool:
    """Whether two strided tensors share an element; both lie within ``length`` bytes of the first's start."""
    size, between = first.element_size(), second.data_ptr() - first.data_ptr()
    if second.element_size() != size or between % size:
        return True
    taken = torch.zeros(length // size, dtype=torch.bool, device="cpu")
    taken.as_strided(first.shape, first.stride()).fill_(True)
    return bool(taken.as_strided(second.shape, second.stride(), between // size).any())


EMPTY = ("new_", "zeros_like", "ones_like", "empty_like", "full_like", "detach", "alias")
"""Beginnings of the names of operations that do not look at a tensor's numbers."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, looks at every operation, whatever tensors were reached by.

    ``read`` are the names of those ``tensors`` whose memory operations read; ``eps`` is that of the lowest precision
    which anything was computed in, ``trained_eps`` that of what derivatives go through, and ``rounded`` are the
    precisions that numbers of float64 which derivatives go through were rounded to.
    """

    def __init__(self, names: Sequence[str] = (), tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if "torch._dynamo" in sys.modules:
            _leave_uncompiled()
        self.read: dict[str, None] = {}
        self.eps, self.trained_eps, self.rounded = 0.0, 0.0, dict[torch.dtype, None]()
        self._spans = [(found, name) for name, t in zip(names, tensors, strict=True) if (found := extent(t))]
        self._starts, self._ends = (np.array([found[i] for found, _ in self._spans], dtype=np.int64) for i in (1, 2))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not by loading torch's compiler, which takes a second; see :func:`_leave_uncompiled`."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and note what was read and what came out."""
        del types
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if self._spans and not func.overloadpacket.__name__.startswith(EMPTY):
            for device, first, last in filter(None, map(extent, given)):
                for i in np.flatnonzero((self._starts < last) & (first < self._ends)):
                    (on, *_), name = self._spans[i]
                    self.read |= {name: None} if on == device else {}
        trained = [each.dtype for each in given if each.requires_grad]
        double = any(each in (torch.float64, torch.complex128) for each in trained)
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and (each.is_floating_point() or each.is_complex()):
                self.eps = max(self.eps, torch.finfo(each.dtype).eps)
                self.trained_eps = max(self.trained_eps, torch.finfo(each.dtype).eps if trained else 0.0)
                if double and torch.finfo(each.dtype).eps > torch.finfo(torch.float64).eps:
                    self.rounded[each.dtype] = None
        return found


@functools.cache
def _leave_uncompiled() -> None:
    """Once torch's compiler is loaded, let it not compile what looks at operations."""
    Watch.__torch_dispatch__ = torch._disable_dynamo(Watch.__torch_dispatch__)  # type: ignore

"""Independent work spread over processes of one thread each, which end with the process that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from hw4.errors import Hw4Error

Task = TypeVar("Task")
Result = TypeVar("Result")


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone: a killed parent cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # nothing is lost: records are written whole

    threading.Thread(target=watch, daemon=True).start()


def spread(make: Callable[[Task], Result], tasks: Sequence[Task], *, processes: int) -> Iterator[Result]:
    """Results of ``make`` for every task as they come, from so many processes, or from this one if one is enough.

    ``make`` and tasks must be picklable. Tasks start in order, so put the longest first. Raises Hw4Error when a
    process dies.
    """
    if processes == 1 or len(tasks) <= 1:
        yield from map(make, tasks)
        return
    # "spawn" gives every process a torch of its own, on every platform.
    pool = ProcessPoolExecutor(
        min(processes, len(tasks)), mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        for future in as_completed([pool.submit(make, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise Hw4Error(
            "a worker process died; what had finished is kept, and the same command goes on from there"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)

"""Independent work spread over processes of one thread each, which end with the process that started them."""

import atexit
import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from hw4.errors import Hw4Error, SpecError
from hw4.machine import KEEP_MEMORY, ONE_THREAD

Task = TypeVar("Task")
Result = TypeVar("Result")


def spare_garbage() -> None:
    """Collect garbage seldom, and not at the end.

    Importing torch and scipy makes a million objects that stay; looking through them again and again takes a second.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def one_thread(processes: int | None) -> int:
    """How many processes to use, by default as many as processors; those started later have one thread each.

    So has this one, where torch and numpy are not loaded yet. Raises SpecError for fewer than one.
    """
    workers = processes if processes is not None else os.cpu_count() or 1
    if workers < 1:
        raise SpecError(f"processes must be at least 1, got {workers}")
    os.environ.update(ONE_THREAD)
    for variable, value in KEEP_MEMORY.items():
        os.environ.setdefault(variable, value)
    return workers


def _begin() -> None:
    """End this worker when the process that started it is gone: a killed parent cannot tell its workers to stop."""
    spare_garbage()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # nothing is lost: records are written whole

    threading.Thread(target=watch, daemon=True).start()


def _here(
    make: Callable[[Task], Result], tasks: list[Task], on_failure: Callable[[Task, Exception], None] | None
) -> Iterator[tuple[Task, Result]]:
    """What :func:`spread` does, in this process."""
    while tasks:
        task = tasks.pop(0)
        try:
            result = make(task)
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(task, error)
        else:
            yield task, result


def spread(
    make: Callable[[Task], Result],
    tasks: list[Task],
    *,
    processes: int,
    executor: Executor | None = None,
    on_failure: Callable[[Task, Exception], None] | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, result) as tasks finish, made by so many processes, by this one, or by an executor.

    Tasks start in order, so put the longest first; tasks added to the list while results are taken are made too.
    ``make`` and tasks must be picklable. What ``make`` raises goes to ``on_failure``, and the other tasks go on.
    Without it, after a failure, running tasks are still yielded, then the error is raised. Raises Hw4Error when a
    process dies.
    """
    if executor is None and (processes == 1 or len(tasks) <= 1):
        yield from _here(make, tasks, on_failure)
        return
    spawn = multiprocessing.get_context("spawn")  # gives every process a torch of its own, on every platform
    pool = executor or ProcessPoolExecutor(min(processes, len(tasks)), mp_context=spawn, initializer=_begin)
    going: dict[Future[Result], Task] = {}
    failed: BaseException | None = None
    try:
        while (tasks and not failed) or going:
            while tasks and not failed:
                task = tasks.pop(0)
                going[pool.submit(make, task)] = task
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                task, problem = going.pop(future), future.exception()
                if problem is None:
                    yield task, future.result()
                elif on_failure and isinstance(problem, Exception) and not isinstance(problem, BrokenProcessPool):
                    on_failure(task, problem)
                elif failed is None:  # what is being made is still waited for and given, and nothing else begun
                    failed = problem
                    going = {other: task for other, task in going.items() if not other.cancel()}
        if failed is not None:
            raise failed
    except BrokenProcessPool as error:
        raise Hw4Error(
            "a worker process died; what had finished is kept, and the same command goes on from there"
        ) from error
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)

"""Independent work spread over processes of one thread each, which end with the process that started them."""

import atexit
import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hw4.errors import Hw4Error, SpecError, WorkersError
from hw4.machine import KEEP_MEMORY, ONE_THREAD

Job = TypeVar("Job")
Result = TypeVar("Result")


def spare_garbage() -> None:
    """Collect garbage seldom, and not at the end.

    Importing torch and scipy makes a million objects that stay; looking through them again and again takes a second.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def one_thread(processes: int | None) -> int:
    """How many processes to use, by default as many as processors that this one may use.

    Those started later have one thread each, and so has this one, where torch and numpy are not loaded yet. Raises
    SpecError for fewer than one.
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = processes if processes is not None else ours
    if workers < 1:
        raise SpecError(f"processes must be at least 1, got {workers}")
    os.environ.update(KEEP_MEMORY | os.environ | ONE_THREAD)
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


def unguarded() -> str:
    """The running script, where it has no place that started processes, which read it again, would leave out."""
    main = sys.modules["__main__"]
    package = getattr(getattr(main, "__spec__", None), "name", "").endswith("__main__")  # is not read again
    script = "" if package else getattr(main, "__file__", None) or ""
    try:
        return script if script and "__main__" not in Path(script).read_text(errors="replace") else ""
    except OSError:  # read from a pipe, or inside of something
        return script


def one_thread_pool(processes: int) -> ProcessPoolExecutor:
    """So many processes, each with a torch of its own on every platform, which end with this one."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin)


def _here(
    make: Callable[[Job], Result], tasks: list[Job], on_failure: Callable[[Job, Exception], None] | None
) -> Iterator[tuple[Job, Result]]:
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


GOES_ON = "finished runs are kept, and the same command, without --fresh, goes on from there"
DIED = f"a worker process died; {GOES_ON}"
OF_ALL = (BrokenProcessPool, WorkersError)  # errors after which the other tasks cannot go on


@contextmanager
def _pool(executor: Any, processes: int) -> Iterator[Any]:
    """A :class:`hw4.cluster.Cluster`, or processes that end with the block; raises Hw4Error where one of them died.

    After Ctrl-C, or where nobody takes results any more, what is still being made is not waited for.
    """
    if executor:
        yield executor
        return
    with one_thread_pool(processes) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise Hw4Error(DIED) from error
        except (KeyboardInterrupt, GeneratorExit):
            for worker in list((pool._processes or {}).values()):
                worker.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def spread(
    make: Callable[..., Result],
    tasks: list[Job],
    *,
    processes: int,
    executor: Any = None,
    share: Callable[[Job], object] | None = None,
    on_failure: Callable[[Job, Exception], None] | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Yield (task, result) as tasks finish, made by so many processes, by this one, or by a cluster.

    Tasks start in order, so put the longest first; tasks added to the list while results are taken are made too.
    ``make`` and tasks must be picklable. What ``make`` raises goes to ``on_failure``; without it running tasks are
    yielded, then it is raised, as Hw4Error where a process died. Workers of a cluster get a task's data by ``share``.
    """
    if executor is None and (processes == 1 or len(tasks) <= 1):
        yield from _here(make, tasks, on_failure)
        return
    going: dict[Future[Result], Job] = {}
    failed: BaseException | None = None
    with _pool(executor, min(processes, len(tasks))) as pool:
        while (tasks and not failed) or going:
            while tasks and not failed:
                task = tasks.pop(0)
                going[pool.submit(make, task, *([executor.share(share(task))] if executor and share else []))] = task
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                task, error = going.pop(future), future.exception()
                if error is None:
                    yield task, future.result()
                    continue
                problem = executor.explained(error) if executor else error
                if on_failure and isinstance(problem, Exception) and not isinstance(problem, OF_ALL):
                    on_failure(task, problem)
                elif failed is None:  # what is being made is still waited for and given, and nothing else begun
                    failed = problem
                    going = {other: task for other, task in going.items() if not other.cancel()}
        if failed is not None:
            raise failed

"""Work over many machines: a Dask cluster whose workers are looked at before they are given anything."""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from hw4.errors import Hw4Error, WorkersError
from hw4.machine import KEEP_MEMORY, ONE_THREAD
from hw4.processes import GOES_ON, one_thread_pool

if TYPE_CHECKING:  # a command's --help need not wait for records
    from hw4.records import Environment

CONNECT_SECONDS = 10
RETRIES = 3


@dataclass(frozen=True)
class Shared:
    """Data on its way to workers, pickled, with the SHA-256 that it must have where it arrives."""

    sha256: str
    contents: bytes = field(compare=False, repr=False)


class Cluster:
    """A Dask cluster as an executor; ``cpus`` names its workers' processors, as records do."""

    def __init__(self, client: Any, expected: "Environment", cpus: set[str]) -> None:
        self.cpus, self._client, self._expected = cpus, client, expected
        self._executor = client.get_executor(pure=False, retries=RETRIES)
        self._shared: dict[int, tuple[object, Any]] = {}

    def submit(self, make: Callable[..., Any], task: object, *shared: object) -> "Future[Any]":
        """Have a worker ``make`` a task, and give it what was shared beside the task."""
        future: Future[Any] = self._executor.submit(_there, self._expected, make, task, *shared)
        return future

    def share(self, value: object) -> object:
        """A handle of a value for :meth:`submit`: each worker gets it once, from this machine or from another worker.

        The scheduler keeps it as long as the command runs: a worker that joins or comes back gets it too.
        """
        if id(value) not in self._shared:
            contents = pickle.dumps(value, protocol=5)
            blob = Shared(hashlib.sha256(contents).hexdigest(), contents)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of its size: it is sent on purpose, and once
                sent = self._client.submit(_hold, blob, key=f"hw4-data-{blob.sha256}")
            self._shared[id(value)] = value, sent  # which keeps the value, and so its id
        return self._shared[id(value)][1]

    def explained(self, error: BaseException) -> BaseException:
        """A task's error, as it is; or a sentence where one worker after another died of the task."""
        if type(error).__name__ == "KilledWorker":
            return Hw4Error(f"one worker after another died while it made the same task (out of memory?); {GOES_ON}")
        return error

    def close(self) -> None:
        """Take back what is not done."""
        with contextlib.suppress(Exception):  # a scheduler that is gone has nothing left to take back
            self._executor.shutdown(wait=False)


@contextlib.contextmanager
def open_cluster(address: str, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster at the address of its scheduler, once every worker there computes as this process does.

    Raises WorkersError for one that does not, and when the scheduler goes; Hw4Error where none answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise Hw4Error("--scheduler needs Dask; install it with 'pip install distributed'") from error
    for name in filter(re.compile("distributed|tornado").match, logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what goes wrong is said below, in one sentence
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # tls:// without its settings is a TypeError
        raise Hw4Error(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds; start one with 'dask scheduler' "
            f"or check the address ({error})"
        ) from error
    try:
        if not client.scheduler_info()["workers"]:
            say(f"The scheduler at {address} has no workers yet; waiting for them.")
            client.wait_for_workers(1)
        expected = surroundings()
        cluster = Cluster(client, expected, _checked(client.run(check, expected, on_error="return")))
        try:
            yield cluster
        finally:
            cluster.close()
    except CancelledError as error:
        raise WorkersError(f"the Dask scheduler at {address} is gone; {GOES_ON}") from error
    finally:
        client.close(timeout=CONNECT_SECONDS)


def surroundings() -> "Environment":
    """What decides the numbers that this process makes."""
    from hw4.records import IMAGE_PACKAGES, TEXT_PACKAGES, environment

    return environment(threads=1, dtype="float32", packages=tuple({*IMAGE_PACKAGES, *TEXT_PACKAGES}))


def check(expected: "Environment", dask_worker: Any) -> str:
    """On a worker: the name of its processor; raises WorkersError if it would make other numbers than expected."""
    here, worker = surroundings(), dask_worker.address
    code = {"code that computes": expected.code[:12]}
    for name, wanted in {**expected.versions, **code}.items():
        found = here.versions.get(name, here.code[:12])
        if found != wanted:
            raise WorkersError(
                f"the worker {worker} has {name} {found} where this machine has {wanted}; make them equal, for both "
                f"decide the numbers, or stop that worker"
            )
    return here.cpu


def _checked(answers: dict[str, Any]) -> set[str]:
    """The workers' processors; WorkersError for the first worker that cannot be used."""
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, WorkersError):
            raise answer
        if not isinstance(answer, str):
            raise WorkersError(f"the worker {worker} cannot load this hw4 ({answer}); install it there")
    return set(answers.values())


def _hold(blob: Shared) -> Shared:
    return blob


@lru_cache(maxsize=2)
def _opened(blob: Shared) -> object:
    """What was shared, unpacked once in each process."""
    if hashlib.sha256(blob.contents).hexdigest() != blob.sha256:
        raise WorkersError(f"the data that came with SHA-256 {blob.sha256[:12]}... is damaged; see to that machine")
    return pickle.loads(blob.contents)


@cache
def _processes(threads: int) -> ProcessPoolExecutor:
    """A worker's processes, one for each of its threads.

    Its own does other things beside, which draw random numbers and take processor time: what is computed there could
    be told from neither.
    """
    os.environ.update(KEEP_MEMORY | ONE_THREAD | os.environ)
    os.environ["OMP_PROC_BIND"] = ONE_THREAD["OMP_PROC_BIND"]  # which a cluster may have set
    multiprocessing.current_process().daemon = False  # as which Dask's nanny starts it, and which may have none
    return one_thread_pool(threads)


def _open_and_make(make: Callable[..., Any], task: object, *shared: Shared) -> Any:
    return make(task, *map(_opened, shared))


def _there(expected: "Environment", make: Callable[..., Any], task: object, *shared: Shared) -> Any:
    """On a worker, which may have joined since the others were looked at."""
    from distributed import get_worker

    worker = get_worker()
    check(expected, worker)
    try:
        return _processes(worker.state.nthreads).submit(_open_and_make, make, task, *shared).result()
    except BrokenProcessPool:
        _processes.cache_clear()
        raise

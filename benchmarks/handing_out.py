"""What it costs to hand work out over a Dask cluster: 'python -m benchmarks.handing_out', two workers on loopback."""

import resource
import time

from hw4.cluster import open_cluster
from hw4.processes import spread
from hw4.specs import TextCNNSpec
from tests.test_cluster import dask

TASKS = 600


def overhead() -> tuple[float, float]:
    """Elapsed and the caller's processor seconds of a task of next to nothing, once the workers have begun."""
    specs = [TextCNNSpec(data="grammar", stride=500, trial=trial) for trial in range(TASKS)]
    with dask() as (address, _), open_cluster(address, print) as cluster:
        for _ in spread(str, specs[:20], processes=1, executor=cluster):
            pass
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in spread(str, list(specs), processes=1, executor=cluster):
            pass
        return (time.perf_counter() - wall) / TASKS, (time.process_time() - cpu) / TASKS


if __name__ == "__main__":
    wall, cpu = overhead()
    print(f"{1e3 * wall:.2f} ms elapsed and {1e3 * cpu:.2f} ms of the caller's processor for each of {TASKS} tasks")
    print(f"caller: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")

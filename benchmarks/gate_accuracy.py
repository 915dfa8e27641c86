"""The accuracy gate's worker: trains the ConvNets and the 60 text models, and prints how each ended, to the last bit.

The first line printed says where and with what it computes; each further line is one group of runs that differ in
their seed only, as JSON. ``--fault`` plants one of the faults of ``planted.py``; ``--perturb`` moves the initial
weights by rounding errors, which is what another processor or another torch does to a run.
"""

import argparse
import hashlib
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

PASSES, SEEDS = 4, 6
"""Enough for the digits to be learnt to about 95%, and for a paired test to have five degrees of freedom."""
ROUNDING = 1e-7
"""About float32's unit roundoff."""
Unit = tuple[str, tuple[str, ...]]
"""A group's name, and the specs, as JSON, of some of its runs that are trained together."""


MEASURED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "smoothness")
"""What a digest is made of, after every pass."""


def plan(data: Literal["embedded", "real"]) -> list[Unit]:
    """Everything to train, the costliest first."""
    from hw4.specs import ConvNetSpec, exercise_specs, sweep_specs
    from hw4.sweep import groups

    images = exercise_specs(
        ["smoothness", "pooling"], seeds=SEEDS, passes=PASSES, data="digits" if data == "embedded" else "fashion-mnist"
    )
    nets = sorted(images, key=lambda spec: spec.norm is None)
    texts = groups(sweep_specs("grammar" if data == "embedded" else "trec"))

    def units(specs: Sequence[Sequence[Any]]) -> list[Unit]:
        return [(_group(group[0]), tuple(spec.model_dump_json() for spec in group)) for group in specs]

    def _group(spec: Any) -> str:
        return spec.label if isinstance(spec, ConvNetSpec) else f"text CNN, stride {spec.stride}"

    return units([[spec] for spec in nets]) + units(texts)


def prepare(fault: str | None, perturb: int | None) -> None:
    """Set a process up: one thread, and what is to be planted."""
    import torch

    torch.set_num_threads(1)
    if fault is not None:
        from benchmarks.planted import FAULTS

        FAULTS[fault]()
    if perturb is not None:
        from hw4 import experiments
        from hw4.models import TextCNNEnsemble

        generator = torch.Generator().manual_seed(perturb)

        def nudged(make: Any) -> Any:
            def made(argument: Any) -> Any:
                model = make(argument)
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1 + ROUNDING * torch.randn(parameter.shape, generator=generator))
                return model

            return made

        experiments.build_convnet = nudged(experiments.build_convnet)
        TextCNNEnsemble.from_models = nudged(TextCNNEnsemble.from_models)  # type: ignore[method-assign]


def train(unit: Unit) -> tuple[str, dict[str, dict[str, object]]]:
    """Train one unit; returns its group and how each run ended, by key."""
    import hw4.data.vectors
    from hw4.data.images import load_images
    from hw4.experiments import train_convnet
    from hw4.specs import ConvNetSpec, TextCNNSpec
    from hw4.sweep import identity, train_trials

    group, texts = unit
    ended = {}
    if group.startswith("text"):
        specs = [TextCNNSpec.model_validate_json(text) for text in texts]
        questions = hw4.data.vectors.load_questions(specs[0].data)
        for record in train_trials(specs, questions, identity(questions)):
            bits: list[object] = [record.test_accuracy, record.correct, record.train_loss, record.diverged]
            ended[record.key] = outcome(bits, record.test_accuracy, record.train_loss, diverged=record.diverged)
    else:
        spec = ConvNetSpec.model_validate_json(texts[0])
        net = train_convnet(spec, load_images(spec.data))
        bits = [net.diverged, *([getattr(row, name) for name in MEASURED] for row in net.rows)]
        ended[net.key] = outcome(bits, net.last.test_accuracy, net.last.train_loss, diverged=net.diverged)
    return group, ended


def outcome(
    bits: object, test_accuracy: float | None, train_loss: float | None, *, diverged: bool
) -> dict[str, object]:
    """What the gate keeps of a run; floats print so that they read back exactly, so equal digests are equal bits."""
    return {
        "digest": hashlib.sha256(json.dumps(bits).encode()).hexdigest()[:16],
        "test_accuracy": None if diverged else test_accuracy,
        "train_loss": None if diverged else train_loss,
        "diverged": diverged,
    }


def end_with_the_gate() -> None:
    """End, with every process started here, when the gate that reads our answers is gone."""

    def watch() -> None:
        sys.stdin.read()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if os.getpgrp() == os.getpid():  # as the gate starts it: the group is ours to end
        threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Train everything asked for over the processors, and print each group as its last run ends."""
    import hw4
    from benchmarks.gate_timing import cpu_class
    from benchmarks.planted import FAULTS

    end_with_the_gate()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("embedded", "real"), default="embedded")
    parser.add_argument("--fault", choices=tuple(FAULTS))
    parser.add_argument("--perturb", type=int, metavar="SEED")
    parser.add_argument("--group", action="append", help="train this group only; may be given several times")
    arguments = parser.parse_args()
    units = [unit for unit in plan(arguments.data) if arguments.group is None or unit[0] in arguments.group]
    package = str(Path(inspect.getfile(hw4)).parent)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn")}
    versions["python"] = platform.python_version()
    facts = {"hw4": package, "versions": versions, "cpu": cpu_class(), "threads": 1, "data": arguments.data}
    print(json.dumps(facts), flush=True)
    found: dict[str, dict[str, dict[str, object]]] = {}
    left = [name for name, _ in units]
    with ProcessPoolExecutor(
        min(os.cpu_count() or 1, 4),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=prepare,
        initargs=(arguments.fault, arguments.perturb),
    ) as pool:
        for future in as_completed([pool.submit(train, unit) for unit in units]):
            group, ended = future.result()
            found.setdefault(group, {}).update(ended)
            left.remove(group)
            if group not in left:
                print(json.dumps({"group": group, "runs": dict(sorted(found[group].items()))}), flush=True)
    print(json.dumps({"group": None}), flush=True)


if __name__ == "__main__":
    main()

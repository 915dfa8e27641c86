"""The command line: options, progress, exit codes. Heavy modules load after the thread count is set."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import typer

from hw4 import __version__, studies
from hw4 import specs as homework
from hw4.errors import Hw4Error, RecordError, SpecError, first_line
from hw4.files import AUDIT, CLAIM_CONTROLS, LADDER, LANDSCAPES, RECORDS, SWEEP_CONTROLS, alone, write_atomically
from hw4.processes import GOES_ON, one_thread, spare_garbage
from hw4.specs import HOMEWORK_RATE, LARGEST_FLOAT32, STRIDES, TRIALS, ConvNetSpec, Dataset, TextCNNSpec
from hw4.studies import (
    AUDIT_SEEDS,
    BISECTIONS,
    CLAIM_SEEDS,
    CONTROLS,
    FIRST_SEED,
    LADDER_PASSES,
    LADDER_RATES,
    LANDSCAPE_PASSES,
    NOTEBOOK_SEEDS,
    SEEDS,
    VIEWS,
)
from hw4.variants import EXERCISES, VARIANTS

if TYPE_CHECKING:
    from hw4.cluster import Cluster
    from hw4.studies import Spec, Study

ROOT = Path(__file__).parents[1]
FAILED, USAGE, UNMEASURABLE, DIVERGED, UNFINISHED, INTERRUPTED = 1, 2, 3, 4, 5, 130

app = typer.Typer(
    name="hw4",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train the homework's networks, measure the smoothness of their loss, and report what the runs show.",
    epilog=f"Real data is looked for in $HW4_DATA, then in the user's cache. Exit codes: 0 done; {FAILED} failed, "
    f"or the gate is red; {USAGE} wrong usage; {UNMEASURABLE} the gate could not judge all; {DIVERGED} 'hw4 run' is "
    f"done, but a ConvNet diverged (recorded and reported as such); {UNFINISHED} the gate could not run or write; "
    f"{INTERRUPTED} interrupted. Examples: 'hw4 run', 'hw4 gate --against main'.",
)

EXAMPLES = {
    "run": "Examples: 'hw4 run' does the whole homework, 5 seeds; 'hw4 run --exercise pooling --data embedded --seeds "
    "1 --passes 2' is a quick look; 'hw4 run --learning-rate 0.2 --out reports/lr0.2' tries another learning rate.",
    "sweep": "Examples: 'hw4 sweep' trains the homework's 60 models; 'hw4 sweep --stride 2 --stride 3 --trials 1000 "
    "--out reports/many' trains 2,000; 'hw4 sweep --learning-rate 0.05' tries another learning rate.",
    "claim": "Examples: 'hw4 claim' takes an hour or more on two processors; 'hw4 claim --data embedded --seeds 2 "
    "--landscapes 1 --passes 2 --landscape-passes 3' is a quick look.",
    "audit": "Examples: 'hw4 audit' takes about ten minutes on two processors; 'hw4 audit --data embedded --seeds 1 "
    "--passes 2' is a quick look.",
    "fetch": "Examples: 'HW4_DATA=/data hw4 fetch' downloads to /data and is found there later; where one computer has "
    "the data, 'python -m http.server' in its folder makes it a mirror for others: 'hw4 fetch --mirror "
    "http://that-computer:8000/'.",
}
"""What stands below a command's help."""

_NAMES = dict.fromkeys([*list(EXERCISES)[:1], "stride", *list(EXERCISES)[1:], "all"])
ExerciseChoice = StrEnum("ExerciseChoice", {name.upper(): name for name in _NAMES})  # type: ignore[misc]
"""What ``--exercise`` takes; typer knows no list of literals."""
VariantChoice = StrEnum("VariantChoice", {name.upper(): name for name in VARIANTS})  # type: ignore[misc]
"""What ``--only`` takes."""


DataOption = Annotated[
    homework.DataChoice,
    typer.Option(help="FashionMNIST and TREC (real), digits and generated questions (embedded), real if found (auto)."),
]


def _folder(text: str) -> Path:
    """A folder by its name: an empty one, as of a variable that is not set, would be the current folder."""
    if not str(text).strip():
        raise SpecError("expected a folder, got nothing (is a variable empty?)")
    if os.path.lexists(text) and not Path(text).is_dir():
        raise SpecError(f"{text} is no folder; give the name of one, which need not be there yet")
    return Path(text)


Out = Annotated[
    Path | None,
    typer.Option(
        parser=_folder,
        metavar="PATH",
        help="Folder for records, figures and the page.  [default: reports/real or reports/embedded]",
    ),
]
Processes = Annotated[int | None, typer.Option(help="Processes of one thread each.  [default: as many as processors]")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Train on the workers of the Dask scheduler at tcp://HOST:PORT instead of --processes (needs Dask).",
    ),
]
Rescue = Annotated[
    bool, typer.Option(help="Show at which smaller learning rate a stride trains whose trials mostly diverge.")
]
Controls = Annotated[
    bool | None,
    typer.Option(
        "--controls/--no-controls",
        help="Train text CNNs at each stride's own best rate, too, and with the vectors' numbers in other orders.  "
        "[default: with real data]",
    ),
]
SaveWeights = Annotated[
    bool,
    typer.Option(
        "--save-weights",
        help="Keep each trained network of the exercises (some 5 MB) for hw4.load_model; what the folder holds "
        "without is trained again.",
    ),
]
Only = Annotated[
    list[VariantChoice] | None,
    typer.Option(help="Train this network alone and no exercise; may be given several times."),
]
_LONGER = [f"{VARIANTS[each.variants[1]].label}s for {each.longer} times" for each in EXERCISES.values() if each.longer]
Longer = Annotated[bool, typer.Option(help=f"Train {' and '.join(_LONGER)} the passes, too, to compare at equal time.")]
Subset = Annotated[
    float | None,
    typer.Option(help="Share of the training images, above 0 and at most 1.  [default: 0.1 real, 1 embedded]"),
]
NoiseFloorOption = Annotated[
    bool, typer.Option(help="Measure what rounding makes of each reading, for one full gradient more.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what the folder already holds.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train and measure ConvNets.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on stdout, everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read by main()
Say = Callable[..., None]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hw4 {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def _sayer(as_json: bool) -> Say:
    return partial(_print, sys.stderr if as_json else sys.stdout)


def _print(file: TextIO, sentence: str) -> None:
    """Print a line; a reader that has gone ('| head -1') is no failure of the command, whose work goes on."""
    try:
        print(sentence, flush=True, file=file)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _one_thread(processes: int | None, scheduler: str | None) -> int:
    """How many processes to use here, each of one thread; raises SpecError where others are to work."""
    if scheduler is not None and not scheduler.strip():
        raise SpecError("--scheduler needs an address, got nothing (is a variable empty?)")
    if processes is not None and scheduler is not None:
        raise SpecError(
            f"--processes {processes} is of this machine and --scheduler trains on others; give one of them"
        )
    return one_thread(processes)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder; raises before the work, and not after it, where its note is somebody else's file."""
    from hw4.records import RunNote, Store

    with alone(folder):
        Store(folder, RunNote).load("run")
        yield


def _where(workers: int, scheduler: str | None) -> str:
    return f"on {scheduler}" if scheduler else f"in up to {workers} processes" if workers > 1 else "in 1 process"


def _cluster(scheduler: str | None, say: Say) -> "contextlib.AbstractContextManager[Cluster | None]":
    """The cluster to train on, if any: looked at before anything is trained."""
    from hw4.cluster import open_cluster

    return open_cluster(scheduler, say) if scheduler else contextlib.nullcontext()


def _choose(
    data: homework.DataChoice, out: Path | None, say: Say, *, images: bool = False, questions: bool = False
) -> tuple[Dataset, homework.QuestionSet, Path, list[str]]:
    """The data sets, both real or both embedded, the folder to write to, and why embedded data stands in, if it does.

    Says which data is used, and why.
    """
    from hw4.data.choose import choose_data

    dataset, question_set, sentences = choose_data(data, images=images, questions=questions)
    for sentence in sentences:
        say(sentence)
    embedded = dataset == "digits"
    notes = sentences if embedded and data == "auto" else []
    return dataset, question_set, out or Path("reports", "embedded" if embedded else "real"), notes


def _check_device(device: str, scheduler: str | None) -> None:
    if device == "cpu":
        return  # without loading torch, which whoever only hands out work has no use for
    if scheduler is not None:
        raise SpecError("--device cuda is of this machine, and --scheduler trains on others' CPUs; give one of them")
    import torch

    if not torch.cuda.is_available():
        raise Hw4Error(
            f"--device cuda needs an NVIDIA GPU and a CUDA build of torch, this is torch {torch.__version__} without "
            f"one; leave the option out to use the CPU"
        )


def _finish(
    out: Path, say: Say, as_json: bool, *, anyway: bool = False, alone: bool = False, **facts: Any
) -> dict[str, str]:
    """Write the page of all that the folder holds, say where it is, and return what could not be on it, and why.

    There need not be a page of networks that were trained ``alone``: it compares.
    """
    from hw4.report.page import load_report

    try:
        report = load_report(out, anyway=anyway, whole=False)
    except RecordError as error:
        if not alone:
            raise
        say(f"No page: {error}. The runs are in {out / RECORDS}.")
        if as_json:
            _print(sys.stdout, json.dumps({"page": None, "absent": {}, "notes": [], **facts, "report": None}, indent=1))
        return {}
    page = report.write(out)
    say(f"Report: {page}")
    if as_json:
        said = {"page": str(page), "absent": dict(report.absent), "notes": list(report.notes)}
        _print(sys.stdout, json.dumps({**said, **facts, "report": report.as_json()}, indent=1))
    return dict(report.absent)


@app.command("run", epilog=EXAMPLES["run"])
def run_command(  # noqa: PLR0917  typer makes options of them
    context: typer.Context,
    exercise: Annotated[
        list[ExerciseChoice] | None,
        typer.Option(help="Which exercise to run; may be given several times.  [default: all]"),
    ] = None,
    data: DataOption = "auto",
    out: Out = None,
    fresh: Fresh = False,
    seeds: Annotated[int, typer.Option(help="Runs of each ConvNet, with seeds 0, 1, ...")] = SEEDS,
    passes: Annotated[int, typer.Option(help="Passes of the ConvNets through the training images.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the ConvNets' SGD, above 0.")] = HOMEWORK_RATE,
    batch_size: Annotated[int, typer.Option(help="Images in a minibatch.")] = 32,
    subset: Subset = None,
    directions: Annotated[int, typer.Option(help="Smoothness readings after each pass; 0 for none.")] = 3,
    noise_floor: NoiseFloorOption = True,
    longer: Longer = True,
    rescue: Rescue = True,
    controls: Controls = None,
    device: Device = "cpu",
    only: Only = None,
    save_weights: SaveWeights = False,
    processes: Processes = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Do the homework: train the networks of its exercises and write records, figures and one page."""
    say, workers = _sayer(as_json), _one_thread(processes, scheduler)
    convnets, texts = _exercises(exercise, only)
    _say_idle(context, say, nets=bool(convnets), texts=texts)
    images, questions, folder, notes = _choose(data, out, say, images=bool(convnets), questions=texts)
    settings = {"passes": passes, "learning_rate": learning_rate, "batch_size": batch_size, "directions": directions}
    nets = _networks(convnets, only, images, seeds, longer=longer, subset=subset, noise_floor=noise_floor, **settings)
    trials = homework.sweep_specs(questions) if texts else ()
    _check_device(device if convnets or only else "cpu", scheduler)
    say(f"Training {_counted(nets, trials)} {_where(workers, scheduler)}.")
    with _held(folder):
        wanted, known = _studies(trials, folder, nets=nets, fresh=fresh, rescue=rescue, controls=controls)
        how: dict[str, Any] = {"fresh": fresh, "device": device, "weights": save_weights, "processes": workers}
        with _cluster(scheduler, say) as how["executor"]:
            lost, failed, error = _train_what_can_be(wanted, known, [] if only else convnets, say, **how)
        _note(folder, notes, failed)
        absent = _finish(folder, say, as_json, alone=bool(only), diverged=lost)
    _end(failed | _own(absent, say), lost, nets, error)


def _own(absent: Mapping[str, str], say: Say) -> dict[str, str]:
    """Which exercises are not on the page, and why; what else is not there is said."""
    own = {title: reason for title, reason in absent.items() if title.startswith("Exercise")}
    for title in absent.keys() - own.keys():
        say(NOT_THERE.format(title=title, reason=absent[title]))
    return own


def _exercises(exercise: Sequence[StrEnum] | None, only: Sequence[StrEnum] | None) -> tuple[list[str], bool]:
    """Which exercises with ConvNets were asked for, and whether the one with text CNNs was."""
    if exercise and only:
        raise typer.BadParameter("--only names networks and --exercise exercises; give one of them")
    chosen = {each.value for each in exercise or [ExerciseChoice("all")]}
    return [known for known in EXERCISES if chosen & {"all", known}], bool(chosen & {"all", "stride"}) and not only


NETS_OPTIONS = (
    *("seeds", "passes", "learning_rate", "batch_size", "subset", "directions", "noise_floor", "longer"),
    "device",
)
TEXTS_OPTIONS = ("rescue", "controls")
"""Parameters of 'hw4 run' that only its ConvNets, or only its text CNNs, take notice of."""


def _say_idle(context: typer.Context, say: Say, *, nets: bool, texts: bool) -> None:
    """Say which options were given that change nothing, for what they are of is not trained or measured."""
    chosen = context.params
    for options, idle, why in (
        (NETS_OPTIONS, not nets, "of ConvNets, and none is trained here"),
        (TEXTS_OPTIONS, not texts, "of text CNNs, and none is trained here"),
        (("longer",), nets and chosen["only"], "of an exercise, and only networks are trained here"),
        (("noise_floor",), nets and not chosen["directions"], "of readings, and none is asked for"),
    ):
        sources = {name: context.get_parameter_source(name) for name in options}
        given = [
            f"--{'no-' * (chosen[name] is False)}{name.replace('_', '-')}"
            for name, source in sources.items()
            if source and source.name == "COMMANDLINE"
        ]
        if given and idle:
            say(f"Without effect: {', '.join(given)}; {why}.")


def _counted(nets: "Sequence[Spec]", trials: "Sequence[Spec]") -> str:
    kinds = ((nets, "ConvNet"), (trials, "text CNN"))
    return " and ".join(f"{len(runs)} {kind}{'s' * (len(runs) > 1)}" for runs, kind in kinds if runs)


def _studies(
    trials: Sequence[TextCNNSpec],
    folder: Path,
    *,
    nets: Sequence[ConvNetSpec] = (),
    fresh: bool,
    rescue: bool,
    controls: bool | None,
) -> "tuple[list[tuple[Path, Study]], list[Spec]]":
    """The studies of the exercises, with the runs of theirs that are known beforehand.

    Raises SpecError when no chart could be drawn of these runs and those that the folder holds already.
    """
    from hw4.records import Store, TextCNNRecord, code_digest

    again = {spec.key for spec in trials if fresh}
    if trials:
        kept = Store(folder / RECORDS, TextCNNRecord).load_all("*_textcnn-*.json", but=again)
        studies.require_equal_trials(trials, kept)
        same = {"stride": trials[0].stride, "trial": trials[0].trial}
        beside = [run for run in kept if run.spec.model_copy(update=same) == trials[0]]
        studies.require_same_code(trials, beside, code_digest())
    if nets:
        _require_same_nets(folder, nets)
    found = [(folder / RECORDS, studies.grid(nets))] * bool(nets)
    found.append((folder / RECORDS, studies.sweep(trials, rescue=rescue)))
    if controls or (controls is None and any(spec.data == "trec" for spec in trials)):
        if not fresh:
            Store(folder / SWEEP_CONTROLS, TextCNNRecord).load_all()  # raises for a bad one now, not amid the work
        found.append((folder / SWEEP_CONTROLS, studies.controls(trials)))
    return found, [spec for _, study in found for spec in study({})]


def _train_what_can_be(
    wanted: "list[tuple[Path, Study]]", specs: "Sequence[Spec]", exercises: list[str], say: Say, **how: Any
) -> tuple[list[str], dict[str, str], Exception | None]:
    """Train; returns which ConvNets diverged, which exercises failed and why, and the first error.

    A run that fails stops no other; raises Hw4Error when all do.
    """
    from hw4.records import ConvNetRecord
    from hw4.runs import carry_out

    errors: list[tuple[Spec, Exception]] = []
    made = carry_out(wanted, specs, say, on_failure=lambda spec, error: errors.append((spec, error)), **how)
    if errors and not made:
        raise Hw4Error(f"nothing could be done ({_explain(errors[0][1])[1]})") from errors[0][1]
    failed: dict[str, str] = {}
    for spec, error in errors:
        titles = ["Exercise 2"]
        if isinstance(spec, ConvNetSpec):
            asked = [EXERCISES[name] for name in exercises if spec.variant in EXERCISES[name].variants]
            titles = [each.title.partition(":")[0] for each in asked] or [spec.key]
        for title in titles:
            failed.setdefault(title, _explain(error)[1])
    lost = [record.key for record in made if isinstance(record, ConvNetRecord) and record.diverged]
    return lost, dict(sorted(failed.items())), errors[0][1] if errors else None


def _networks(
    exercises: list[str], only: Sequence[StrEnum] | None, data: Dataset, seeds: int, *, longer: bool, **settings: Any
) -> tuple[ConvNetSpec, ...]:
    """The ConvNets of some exercises, ``longer`` runs of theirs too, or those of ``only``."""
    if only:
        return homework.variant_specs(
            [*dict.fromkeys(map(str, only))], seeds=homework.numbered(seeds), data=data, **settings
        )
    nets = studies.networks(exercises, data=data, seeds=seeds, **settings)
    return nets + homework.longer_specs(exercises, nets) if longer else nets


def _require_same_nets(folder: Path, nets: Sequence[ConvNetSpec]) -> None:
    """Raise SpecError where the folder's runs of the same exercises and settings are of other code, and stay so."""
    from hw4.records import ConvNetRecord, Store, code_digest

    settings, names = {spec.setting for spec in nets}, {spec.variant for spec in nets}
    compared = {name for each in EXERCISES.values() if names & set(each.variants) for name in each.variants}
    for longer in filter(None, (exercise.longer for exercise in EXERCISES.values())):
        settings |= {each.model_copy(update={"passes": longer * each.passes}) for each in settings}
    kept = Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json", but={spec.key for spec in nets})
    kept = [run for run in kept if run.spec.setting in settings and run.spec.variant in compared]
    studies.require_same_code(nets, kept, code_digest())


def _note(folder: Path, notes: list[str], failed: dict[str, str]) -> None:
    """Keep what is to be said of the last ``hw4 run``, if anything, for this page and those drawn later."""
    from hw4.records import RunNote, Store

    store = Store(folder, RunNote)
    if notes or failed:
        known = {title: _in_utf8(reason) for title, reason in failed.items()}
        store.save(RunNote(notes=list(map(_in_utf8, notes)), failed=known))
    elif store.load("run") is not None:
        store.path("run").unlink()


def _in_utf8(sentence: str) -> str:
    """A sentence that may name a path of bytes that are no letters, as a file can hold it."""
    return sentence.encode(errors="backslashreplace").decode()


def _end(failed: Mapping[str, str], lost: list[str], nets: "Sequence[ConvNetSpec]", error: Exception | None) -> None:
    """Say what is not on the page and what diverged, and end with the exit code of the worse."""
    if error and "--debug" in sys.argv:
        raise error
    if failed:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in failed.items())
        raise Hw4Error(f"the page is written without what could not be done ({reasons})")
    if lost:
        advice = "a smaller --learning-rate may keep training stable"
        if all(spec.learning_rate < HOMEWORK_RATE for spec in nets):  # the loss may have risen by next to nothing
            advice = f"where nothing is learnt at a rate below {HOMEWORK_RATE:g}, take a larger --learning-rate"
        _print(
            sys.stderr,
            f"hw4: {len(lost)} of {len(nets)} ConvNets diverged and {'are' if len(lost) > 1 else 'is'} recorded as "
            f"such ({lost[0]}{' and others' if len(lost) > 1 else ''}); {advice}",
        )
        raise typer.Exit(DIVERGED)


NOT_THERE = "Not on the page: {title}, for {reason}."


def _end_with(absent: Mapping[str, str], own: str, say: Say) -> None:
    """End with an error where the command's own part is not on the page, and say which others are not."""
    for title, reason in absent.items():
        if title == own:
            raise Hw4Error(reason)
        say(NOT_THERE.format(title=title, reason=reason))


@app.command("sweep", epilog=EXAMPLES["sweep"])
def sweep_command(  # noqa: PLR0917  typer makes options of them
    data: DataOption = "auto",
    out: Out = None,
    fresh: Fresh = False,
    stride: Annotated[
        list[int] | None,
        typer.Option(help=f"A stride; may be given several times.  [default: {' '.join(map(str, STRIDES))}]"),
    ] = None,
    trials: Annotated[int, typer.Option(help="Models of each stride.")] = TRIALS,
    epochs: Annotated[int, typer.Option(help="Rounds through the training questions.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of SGD, above 0.")] = 0.1,
    momentum: Annotated[float, typer.Option(help="Momentum of SGD, from 0 to below 1.")] = 0.8,
    rescue: Rescue = True,
    controls: Controls = None,
    processes: Processes = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Train the text CNNs of exercise 2 over strides and draw the bar chart."""
    say, workers = _sayer(as_json), _one_thread(processes, scheduler)
    _, name, folder, _ = _choose(data, out, say, questions=True)
    specs = homework.sweep_specs(
        name, strides=stride or STRIDES, trials=trials, epochs=epochs, learning_rate=learning_rate, momentum=momentum
    )

    from hw4.records import RunNote, Store
    from hw4.runs import carry_out

    say(f"Training {_counted((), specs)} {_where(workers, scheduler)}.")
    with _held(folder):
        note = Store(folder, RunNote).load("run")
        wanted, known = _studies(specs, folder, fresh=fresh, rescue=rescue, controls=controls)
        with _cluster(scheduler, say) as executor:
            carry_out(wanted, known, say, processes=workers, executor=executor, fresh=fresh)
        if note is not None and note.failed.pop("Exercise 2", ""):  # what 'hw4 run' could not do is done now
            _note(folder, note.notes, note.failed)
        failed = _finish(folder, say, as_json)
    _end_with(failed, "Exercise 2", say)


@app.command("claim", epilog=EXAMPLES["claim"])
def claim_command(  # noqa: PLR0917  typer makes options of them
    data: DataOption = "auto",
    out: Out = None,
    fresh: Fresh = False,
    device: Device = "cpu",
    seeds: Annotated[int, typer.Option(help="Paired seeds of everything: ladder, controls, mechanism.")] = CLAIM_SEEDS,
    first_seed: Annotated[int, typer.Option(help="The first of the seeds.", min=0)] = FIRST_SEED,
    landscapes: Annotated[int, typer.Option(help="Seeds whose sharpness, kinks and range view are looked at.")] = VIEWS,
    passes: Annotated[int, typer.Option(help="Passes of the ladder's and the controls' runs.")] = LADDER_PASSES,
    landscape_passes: Annotated[int, typer.Option(help="Passes of the runs at 0.04 looked into.")] = LANDSCAPE_PASSES,
    rate: Annotated[
        list[float] | None,
        typer.Option(help=f"A learning rate; several make a ladder.  [default: {' '.join(map(str, LADDER_RATES))}]"),
    ] = None,
    controls: Annotated[bool, typer.Option(help=f"Train the controls, too: {', '.join(CONTROLS)}.")] = True,
    bisections: Annotated[
        int, typer.Option(help="Times that the limit of each network and seed is narrowed between two rates.", min=0)
    ] = BISECTIONS,
    processes: Processes = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Test the claim that BatchNorm allows larger learning rates: a ladder of rates, sharpness, kinks, range views."""
    say, workers = _sayer(as_json), _one_thread(processes, scheduler)
    name, _, folder, _ = _choose(data, out, say, images=True)
    which: dict[str, Any] = {"seeds": seeds, "data": name, "first_seed": first_seed}
    rungs = studies.ladder_specs(rates=rate or LADDER_RATES, passes=passes, **which)
    views = studies.landscape_specs(views=landscapes, passes=landscape_passes, **which)
    beside = studies.control_specs(passes=passes, **which) if controls else ()

    from hw4.runs import carry_out

    _check_device(device, scheduler)
    few = f"{len(beside) or 'none'} as controls and {len(views)} to look around in"
    say(f"Training {len(rungs)} networks on the ladder, {few}.")
    with _held(folder):
        _require_one_protocol(folder, [*rungs, *beside], views, fresh=fresh)
        wanted = [(folder / LADDER, studies.ladder(rungs, bisections=bisections))]
        wanted += [(folder / part, studies.grid(few)) for part, few in ((CLAIM_CONTROLS, beside), (LANDSCAPES, views))]
        how: dict[str, Any] = {"processes": workers, "fresh": fresh, "device": device}
        with _cluster(scheduler, say) as executor:
            carry_out(wanted, [*rungs, *beside, *views], say, executor=executor, **how)
        failed = _finish(folder, say, as_json)
    _end_with(failed, "The claim", say)


def _require_one_protocol(
    folder: Path, rungs: Sequence[ConvNetSpec], views: Sequence[ConvNetSpec], *, fresh: bool
) -> None:
    """Raise SpecError when these runs and the folder's would not belong together."""
    from hw4.records import ConvNetRecord, Store, code_digest

    for wanted, parts in ((rungs, (LADDER, CLAIM_CONTROLS)), (views, (LANDSCAPES,))):
        again = {spec.key for spec in wanted if fresh}
        kept = [run for part in parts for run in Store(folder / part, ConvNetRecord).load_all(but=again)]
        studies.require_one_protocol(wanted, kept)
        studies.require_same_code(wanted, kept, code_digest())


@app.command("audit", epilog=EXAMPLES["audit"])
def audit_command(  # noqa: PLR0917  typer makes options of them
    data: DataOption = "auto",
    out: Out = None,
    seeds: Annotated[int, typer.Option(help="Runs of each ConvNet.")] = AUDIT_SEEDS,
    notebook_seeds: Annotated[
        int, typer.Option(min=2, help="Repeats of what the notebook printed, on the homework's data.")
    ] = NOTEBOOK_SEEDS,
    passes: Annotated[int, typer.Option(help="Passes through the training data.")] = 10,
    processes: Processes = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Rerun the solved notebook's way of measuring beside the right one, and show what each flaw changes.

    With --scheduler the networks train there, and what is timed is timed here, side by side.
    """
    say, workers = _sayer(as_json), _one_thread(processes, scheduler)
    name, texts, folder, _ = _choose(data, out, say, images=True, questions=True)

    from hw4.audit import parts, run_audit
    from hw4.progress import progress_bar
    from hw4.records import Store, TextCNNRecord
    from hw4.report.audit import as_text

    specs = homework.exercise_specs(["smoothness"], seeds=seeds, data=name, passes=passes)
    with _held(folder):
        Store(folder / AUDIT / "sweep", TextCNNRecord).load_all()  # which raises for a bad one, and not amid the work
        with _cluster(scheduler, say) as executor, progress_bar(total=parts(specs, notebook_seeds), unit="part") as bar:

            def on_audit(part: str) -> None:
                bar.set_description(part, refresh=False)
                bar.update()
                if bar.disable:  # no terminal: a line for each part that ends
                    say(f"  {part}")

            how: dict[str, Any] = {"processes": workers, "executor": executor, "on_audit": on_audit}
            record = run_audit(specs, texts, folder / AUDIT, repeats=notebook_seeds, **how)
        say(as_text(record))
        failed = _finish(folder, say, as_json)
    _end_with(failed, "The audit", say)


@app.command("report", epilog="Example: 'hw4 report --out reports/embedded' after 'hw4 run --data embedded'.")
def report_command(
    out: Annotated[
        Path,
        typer.Option(
            parser=_folder, metavar="PATH", help="Folder that 'hw4 run', another command or the benchmarks wrote to."
        ),
    ],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Draw a sweep although it is incomplete or mixed, and say so.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write results.csv, too: a table of all runs and passes.")] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Draw figures and page again from the records in a folder, without training."""
    from hw4.records import RunNote, Store

    say, facts = _sayer(as_json), dict[str, Any]()
    if csv:
        from hw4.results import load_results

        write_atomically(out / "results.csv", load_results(out).to_csv(index=False).encode())
        facts["table"] = str(out / "results.csv")
        say(f"Table: {facts['table']}")
    absent = _finish(out, say, as_json, anyway=anyway, alone=csv, **facts)
    note = Store(out, RunNote).load("run")
    if new := {title: why for title, why in absent.items() if note is None or title not in note.failed}:
        reasons = "; ".join(f"{title}: {why}" for title, why in new.items())
        raise Hw4Error(f"the page is written without what cannot be reported ({reasons})")


def _own_gate() -> Callable[..., dict[str, Any]]:
    """What judges hw4 itself, of this checkout's benchmarks; raises Hw4Error where there is none."""
    if not (ROOT / "benchmarks" / "own_gate.py").exists():
        raise Hw4Error(
            f"'hw4 gate' judges hw4 itself and needs a checkout of it, with benchmarks beside {ROOT / 'hw4'}; for code "
            f"of your own use pytest's 'gate' fixture"
        )
    sys.path.insert(0, str(ROOT))
    from benchmarks.own_gate import judge_hw4

    return judge_hw4


@app.command(
    "gate",
    epilog=f"Exit codes: 0 not slower and not worse; {FAILED} a regression, changed numbers, or results too good to "
    f"pass silently; {UNMEASURABLE} not all could be judged (a noisy machine, no comparable baseline); "
    f"{UNFINISHED} it could not run or write. Examples: 'hw4 gate --against main' judges a branch without any "
    f"baseline; 'hw4 gate --update' takes what is now as the baseline. To gate code of your own, see pytest's 'gate' "
    f"fixture, which comes with hw4.",
)
def gate_command(  # noqa: PLR0917  typer makes options of them
    against: Annotated[
        str | None, typer.Option(metavar="REV", help="Compare with this git revision instead of the baseline.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Show what changes, then rewrite the baseline.")] = False,
    part: Annotated[Literal["timing", "accuracy", "all"], typer.Option(help="What to judge.")] = "all",
    data: Annotated[Literal["embedded", "real"], typer.Option(help="What the accuracies are of.")] = "embedded",
    out: Annotated[
        Path, typer.Option(parser=_folder, metavar="PATH", help="Folder for gate.json and gate.xml (JUnit).")
    ] = Path("reports/gate"),
    as_json: Json = False,
    _debug: Debug = False,
) -> int:
    """Judge whether hw4's own code became slower or worse, by a gate that tests itself on every run."""
    if against is not None and not against.strip():
        raise SpecError("--against needs a revision, and was given nothing; is a variable empty?")
    if against and update:
        raise SpecError("--update takes what is measured now, so it does not go with --against; give one of them")
    say = _sayer(as_json)
    try:
        out.mkdir(parents=True, exist_ok=True)
        judged = _own_gate()(out, part=part, data=data, against=against, update=update, say=say)
    except OSError as error:
        _print(sys.stderr, f"hw4: {error.filename or out}: {error.strerror}; nothing was judged")
        return UNFINISHED
    except Hw4Error as error:
        _print(sys.stderr, f"hw4: {error}")
        return UNFINISHED
    if as_json:
        _print(sys.stdout, json.dumps(judged, indent=1))
    return int(judged["exit_code"])


@app.command("fetch", epilog=EXAMPLES["fetch"])
def fetch_command(
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Address to ask instead of the published ones, of a folder that holds FashionMNIST/raw, trec and "
            "en_core_web_sm with the files as published, or all of them side by side; may be given several times."
        ),
    ] = None,
    _debug: Debug = False,
) -> None:
    """Download FashionMNIST (31 MB), TREC (0.1 MB) and spaCy's en_core_web_sm 3.6.0 (13 MB), checked by SHA-256 sums.

    They go to $HW4_DATA or the user's cache. A model of another version there is kept with the version in its name.
    """
    from hw4.data.fetch import check_mirror, fetch_all
    from hw4.data.locate import data_roots

    for address in mirror or ():
        check_mirror(address)
    root = data_roots()[0]
    _print(sys.stdout, f"Fetching to {root} what is not there and intact.")
    for sentence in fetch_all(root, mirror or ()):
        _print(sys.stdout, sentence)


def main() -> None:
    """Run the command line; every expected error becomes one sentence on stderr, unless ``--debug`` is given."""
    spare_garbage()
    os.environ.pop("MPLBACKEND", None)  # nothing is shown, and one that is not there would be an error
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  open to the end
        # A terminal of ASCII shows a path of other letters all the same.
        cast("io.TextIOWrapper", getattr(sys, name)).reconfigure(errors="backslashreplace")
    try:
        code, sentence = app(prog_name="hw4", standalone_mode=False), ""
    except (Hw4Error, OSError, typer.TyperException) as error:
        if "--debug" in sys.argv:
            raise
        code, sentence = _explain(error)
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        sentence = f"interrupted; {GOES_ON}" if {*sys.argv[1:2]} & {"run", "sweep", "claim"} else "interrupted"
    if sentence:
        _print(sys.stderr, f"hw4: {sentence}")
    sys.exit(cast("int | None", code))


def _shortened(message: str) -> str:
    """A message without the 39 digits of the largest number in float32."""
    return re.sub(r"\b340282346638528\d{24}\b", f"{LARGEST_FLOAT32:.2g}", message)


def _given(message: str) -> str:
    """What was given for the option that a message is about, where that does not say it."""
    option = message.partition("Invalid value for '")[2].partition("'")[0].rpartition(" ")[2]
    words = [*sys.argv, ""]
    found = [
        after if word == option else word.partition("=")[2]
        for word, after in pairwise(words)
        if option and word.partition("=")[0] == option
    ]
    return f", got {found[-1]!r:.40}" if found and found[-1] not in message else ""


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for an expected error."""
    if isinstance(error, typer.TyperException):
        message = getattr(error, "format_message", lambda: str(error))()
        command = getattr(getattr(error, "ctx", None), "command_path", "hw4")
        message = _shortened(message.replace("Value error, ", ""))
        return USAGE, f"{message.strip().rstrip('.')}{_given(message)}; see '{command} --help'"
    if isinstance(error, SpecError):
        return USAGE, _shortened(str(error))
    if isinstance(error, OSError) and error.filename:
        what_to_do = "see to that or choose another folder; nothing finished is lost"
        return FAILED, f"{error.filename}: {error.strerror}; {what_to_do}"
    if isinstance(error, Hw4Error):
        return FAILED, str(error)
    return FAILED, f"{type(error).__name__}: {first_line(error)}"

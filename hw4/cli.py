"""The command line: options, progress, exit codes. Heavy modules load after the thread count is set."""

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Never

import typer
from tqdm import tqdm

from hw4 import __version__
from hw4.errors import Hw4Error, SpecError
from hw4.specs import (
    EXERCISES,
    LADDER_RATES,
    STRIDES,
    TRIALS,
    ConvNetSpec,
    exercise_specs,
    ladder_specs,
    landscape_specs,
    sweep_specs,
)

if TYPE_CHECKING:
    from hw4.experiments import OnPass, OnRun
    from hw4.records import ConvNetRecord, LandscapeRecord, PassRow, TextCNNRecord

FAILED, USAGE, UNMEASURABLE, DIVERGED, INTERRUPTED = 1, 2, 3, 4, 130

CONNECT_SECONDS = 10

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

app = typer.Typer(
    name="hw4",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train the homework's networks, measure the smoothness of their loss, and report what the runs show.",
    epilog=f"Exit codes: 0 done; {FAILED} failed; {USAGE} wrong usage; {UNMEASURABLE} the gate cannot say; "
    f"{DIVERGED} done, but a run diverged (recorded and reported as such); {INTERRUPTED} interrupted.",
)


class ExerciseChoice(StrEnum):
    """What ``hw4 run`` can be asked for."""

    smoothness = "smoothness"
    pooling = "pooling"
    all = "all"


class DataChoice(StrEnum):
    """Where the images come from."""

    auto = "auto"
    embedded = "embedded"
    real = "real"


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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


@app.command(
    "run",
    epilog="Examples: 'hw4 run' trains everything, 5 seeds; 'hw4 run --exercise pooling --data embedded --seeds 1 "
    "--passes 2' is a quick look; 'hw4 run --learning-rate 0.2 --out reports/lr0.2' tries another learning rate.",
)
def run_command(  # noqa: PLR0917  typer makes options of them
    exercise: Annotated[ExerciseChoice, typer.Option(help="Which exercise to run.")] = ExerciseChoice.all,
    data: Annotated[
        DataChoice, typer.Option(help="Images: FashionMNIST (real), digits (embedded), or real when found (auto).")
    ] = DataChoice.auto,
    seeds: Annotated[int, typer.Option(help="Runs of each network, with seeds 0, 1, ...")] = 5,
    passes: Annotated[int, typer.Option(help="Passes through the training data.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of SGD, above 0.")] = 0.04,
    batch_size: Annotated[int, typer.Option(help="Images in a minibatch.")] = 32,
    subset: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images to use, above 0 and at most 1.  [default: 0.1 real, 1 embedded]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for records, figures and the page.  [default: reports/DATA]")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch; one is steadiest beside other work.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what the folder already holds.")] = False,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Train the networks of exercises 1 and 3 and write records, figures and a report page."""
    if threads < 1:
        raise SpecError(f"--threads must be at least 1, got {threads}")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    from hw4.data.images import choose_dataset, load_images

    name, sentence = choose_dataset(data.value)
    exercises = [known for known in EXERCISES if exercise in (ExerciseChoice.all, known)]
    specs = exercise_specs(
        exercises, seeds=seeds, data=name, subset=subset,
        passes=passes, learning_rate=learning_rate, batch_size=batch_size,
    )  # fmt: skip
    folder = out or Path("reports", name)
    print(sentence, flush=True)

    import torch

    from hw4.experiments import run
    from hw4.records import ConvNetRecord, Store
    from hw4.report.page import write_report

    torch.set_num_threads(threads)
    images = load_images(name, subset=subset)
    print(f"Training {len(specs)} networks of {passes} passes over {len(images.x_train):,} images.", flush=True)
    with tqdm(total=len(specs) * passes, unit="pass", disable=None, dynamic_ncols=True) as bar:
        records = run(
            specs,
            images,
            Store(folder / "records", ConvNetRecord),
            fresh=fresh,
            on_pass=_on_pass(bar),
            on_run=_on_run(bar),
        )
    page = write_report(records, folder)
    print(f"Report: {page}")
    diverged = [record.key for record in records if record.diverged]
    if diverged:
        print(
            f"hw4: {len(diverged)} of {len(records)} runs diverged and are recorded as such ({diverged[0]}"
            f"{' and others' if len(diverged) > 1 else ''}); a smaller --learning-rate may keep them stable",
            file=sys.stderr,
        )
        raise typer.Exit(DIVERGED)


def _on_pass(bar: "tqdm[Never]") -> "OnPass":
    def on_pass(spec: ConvNetSpec, row: "PassRow") -> None:
        loss = "not finite" if row.train_loss is None else f"{row.train_loss:.3f}"
        bar.set_description(f"{spec.label}, seed {spec.seed}, loss {loss}", refresh=False)
        bar.update()

    return on_pass


def _on_run(bar: "tqdm[Never]") -> "OnRun":
    def on_run(record: "ConvNetRecord", found: bool) -> None:
        bar.update(record.spec.passes if found else record.spec.passes - len(record.times))
        accuracy = record.last.test_accuracy
        outcome = "diverged" if record.diverged or accuracy is None else f"test accuracy {accuracy:.3f}"
        seconds = sum(time.wall_seconds for time in record.times)
        how = "found on disk" if found else f"{seconds:.1f} s of training"
        bar.write(f"  {record.spec.label}, seed {record.spec.seed}: {outcome} ({how})")
        sys.stdout.flush()

    return on_run


@app.command(
    "sweep",
    epilog="Examples: 'hw4 sweep' trains the homework's 60 models; 'hw4 sweep --stride 2 --stride 3 --trials 1000 "
    "--out reports/many' trains 2,000; 'hw4 sweep --learning-rate 0.05' tries another learning rate.",
)
def sweep_command(  # noqa: PLR0917  typer makes options of them
    data: Annotated[
        DataChoice, typer.Option(help="Questions: TREC (real), generated (embedded), or real when found (auto).")
    ] = DataChoice.auto,
    stride: Annotated[
        list[int] | None, typer.Option(help="A stride; may be given several times.  [default: 1 5 10 30 100 500]")
    ] = None,
    trials: Annotated[int, typer.Option(help="Models of each stride.")] = TRIALS,
    epochs: Annotated[int, typer.Option(help="Rounds through the training questions.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of SGD, above 0.")] = 0.1,
    momentum: Annotated[float, typer.Option(help="Momentum of SGD, from 0 to below 1.")] = 0.8,
    out: Annotated[
        Path | None, typer.Option(help="Folder for records, chart and page.  [default: reports/DATA]")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes of one thread each.  [default: as many as processors]")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:PORT, to train there (needs hw4[dask]).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what the folder already holds.")] = False,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Train the text CNNs of exercise 2 over strides and draw the bar chart."""
    workers = processes if processes is not None else os.cpu_count() or 1
    if workers < 1:
        raise SpecError(f"--processes must be at least 1, got {workers}")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    from hw4.data.vectors import choose_questions, load_questions

    name, sentence = choose_questions(data.value)
    specs = sweep_specs(
        name, strides=stride or STRIDES, trials=trials, epochs=epochs, learning_rate=learning_rate, momentum=momentum
    )
    folder = out or Path("reports", name)
    print(sentence, flush=True)

    from hw4.records import Store, TextCNNRecord
    from hw4.report.page import write_sweep_report
    from hw4.sweep import sweep_and_rescue

    questions = load_questions(name)
    print(f"Training {len(specs)} text CNNs on {len(questions.x_train):,} questions ({questions.vectors}).", flush=True)
    store = Store(folder / "records", TextCNNRecord)
    on_disk = 0
    cluster = _cluster(scheduler) if scheduler else contextlib.nullcontext()
    with cluster as executor, tqdm(total=len(specs), unit="model", disable=None, dynamic_ncols=True) as bar:

        def on_trial(record: "TextCNNRecord", found: bool) -> None:
            nonlocal on_disk
            on_disk += found
            bar.total = max(bar.total or 0, bar.n + 1)  # learning rates tried beyond the sweep come on top
            bar.set_description(f"stride {record.stride}, trial {record.trial}", refresh=False)
            bar.update()

        records = sweep_and_rescue(
            specs, questions, store, processes=workers, executor=executor, fresh=fresh, on_trial=on_trial
        )
    if on_disk:
        print(f"{on_disk} of {len(records)} models were found on disk.")
    print(f"Report: {write_sweep_report(records, folder)}")


@app.command(
    "claim",
    epilog="Examples: 'hw4 claim' takes about a quarter of an hour on two processors; 'hw4 claim --data embedded "
    "--seeds 2 --landscapes 1 --passes 3' is a quick look.",
)
def claim_command(  # noqa: PLR0917  typer makes options of them
    data: Annotated[
        DataChoice, typer.Option(help="Images: FashionMNIST (real), digits (embedded), or real when found (auto).")
    ] = DataChoice.auto,
    seeds: Annotated[int, typer.Option(help="Runs of each network at each learning rate of the ladder.")] = 5,
    landscapes: Annotated[int, typer.Option(help="Runs of each network that are looked around in.")] = 3,
    passes: Annotated[int, typer.Option(help="Passes through the training data.")] = 10,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="A learning rate; several make a ladder.  [default: 0.01 to 5.12 by twos]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for records, figures and page.  [default: reports/DATA/claim]")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes of one thread each.  [default: as many as processors]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what the folder already holds.")] = False,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Test the claim that BatchNorm allows larger learning rates: a ladder of rates, sharpness, kinks, range views."""
    workers = processes if processes is not None else os.cpu_count() or 1
    if workers < 1:
        raise SpecError(f"--processes must be at least 1, got {workers}")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    from hw4.data.images import choose_dataset, load_images

    name, sentence = choose_dataset(data.value)
    ladder = ladder_specs(rates=rate or LADDER_RATES, seeds=seeds, data=name, passes=passes)
    views = landscape_specs(seeds=landscapes, data=name, passes=passes)
    folder = out or Path("reports", name, "claim")
    print(sentence, flush=True)

    from hw4.claim import run_claim
    from hw4.records import LandscapeRecord
    from hw4.report.page import write_claim_report

    print(f"Training {len(ladder)} networks on the ladder and {len(views)} to look around in.", flush=True)
    with tqdm(total=len(ladder) + len(views), unit="run", disable=None, dynamic_ncols=True) as bar:

        def on_claim(record: "ConvNetRecord | LandscapeRecord", found: bool) -> None:  # noqa: ARG001
            spec = record.spec.run if isinstance(record, LandscapeRecord) else record.spec
            bar.set_description(f"{spec.label}, rate {spec.learning_rate:g}, seed {spec.seed}", refresh=False)
            bar.update()

        made = run_claim(
            ladder, views, load_images(name), folder, processes=workers, fresh=fresh, on_claim=on_claim
        )  # fmt: skip
    print(f"Report: {write_claim_report(*made, folder)}")


@app.command(
    "audit",
    epilog="Examples: 'hw4 audit' takes about three minutes on two processors; 'hw4 audit --data embedded --seeds 1 "
    "--passes 2' is a quick look.",
)
def audit_command(  # noqa: PLR0917  typer makes options of them
    data: Annotated[
        DataChoice, typer.Option(help="Images and questions: real, embedded, or real when both are found (auto).")
    ] = DataChoice.auto,
    seeds: Annotated[int, typer.Option(help="Runs of each ConvNet.")] = 3,
    passes: Annotated[int, typer.Option(help="Passes through the training data.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Folder for record, figure and page.  [default: reports/DATA/audit]")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes of one thread each.  [default: as many as processors]")
    ] = None,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Rerun the solved notebook's way of measuring beside the right one, and show what each flaw changes."""
    workers = processes if processes is not None else os.cpu_count() or 1
    if workers < 1:
        raise SpecError(f"--processes must be at least 1, got {workers}")
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    from hw4.data.images import choose_dataset
    from hw4.data.vectors import choose_questions

    (name, sentence), (texts, other) = choose_dataset(data.value), choose_questions(data.value)
    if data is DataChoice.auto and (name == "digits") != (texts == "grammar"):
        (name, sentence), (texts, other) = choose_dataset("embedded"), choose_questions("embedded")
    folder = out or Path("reports", name, "audit")
    print(f"{sentence}\n{other}", flush=True)

    from hw4.audit import run_audit
    from hw4.report.audit import as_text
    from hw4.report.page import write_audit_report

    with tqdm(total=2 * seeds + 4, unit="part", disable=None, dynamic_ncols=True) as bar:

        def on_audit(part: str) -> None:
            bar.set_description(part, refresh=False)
            bar.update()

        record = run_audit(
            name, texts, folder, seeds=seeds, passes=passes, processes=workers, on_audit=on_audit
        )  # fmt: skip
    print(as_text(record))
    print(f"Report: {write_audit_report(record, folder)}")


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    """The executor of a Dask cluster; what its workers cannot give back is said in one sentence."""
    try:
        from distributed import Client
    except ImportError as error:
        raise Hw4Error("--scheduler needs Dask; install it with 'pip install hw4[dask]'") from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise Hw4Error(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds; start one with 'dask scheduler' "
            f"or check the address"
        ) from error
    try:
        if not client.scheduler_info()["workers"]:
            print(f"The scheduler at {address} has no workers yet; waiting for them.", flush=True)
        with client.get_executor(pure=False, retries=3) as executor:
            yield executor
    finally:
        client.close()


@app.command("report", epilog="Example: 'hw4 report --out reports/digits' after 'hw4 run --data embedded'.")
def report_command(
    out: Annotated[Path, typer.Option(help="Folder that 'hw4 run', 'hw4 sweep' or the benchmarks wrote to.")],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Draw a sweep although it is incomplete or mixed, and say so.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Draw figures and page again from the records in a folder, without training."""
    from hw4.errors import RecordError
    from hw4.records import AuditRecord, ConvNetRecord, LandscapeRecord, Store, TextCNNRecord, read_record
    from hw4.report.benchmarks import newest_run
    from hw4.report.page import (
        write_audit_report,
        write_benchmark_report,
        write_claim_report,
        write_report,
        write_sweep_report,
    )

    folder = out / "records"
    if (out / "audit.json").exists():
        print(f"Report: {write_audit_report(read_record(out / 'audit.json', AuditRecord), out)}")
        return
    if (out / "ladder").exists():
        made = (Store(out / "ladder", ConvNetRecord).load_all(), Store(out / "landscapes", LandscapeRecord).load_all())
        print(f"Report: {write_claim_report(*made, out)}")
        return
    saved = newest_run(out)
    if saved is not None and not folder.exists():
        print(f"Report: {write_benchmark_report(saved, out)}")
        return
    if not any(folder.glob("*.json")):
        raise RecordError(f"there are no records in {folder}; make them with 'hw4 run' or 'hw4 sweep', --out {out}")
    if any(folder.glob("*_textcnn-*.json")):
        page = write_sweep_report(Store(folder, TextCNNRecord).load_all(), out, anyway=anyway)
    else:
        page = write_report(Store(folder, ConvNetRecord).load_all(), out)
    print(f"Report: {page}")


class PartChoice(StrEnum):
    """What ``hw4 gate`` can be asked for."""

    timing = "timing"
    accuracy = "accuracy"
    all = "all"


class GateData(StrEnum):
    """What the gate trains on."""

    embedded = "embedded"
    real = "real"


@app.command(
    "gate",
    epilog=f"Exit codes: 0 not slower and not worse; {FAILED} a regression, changed numbers, or results too good to "
    f"pass silently; {UNMEASURABLE} nothing can be said (a noisy machine, no comparable baseline), and why. "
    f"Examples: 'hw4 gate --against main' judges a branch without any baseline; 'hw4 gate --update' takes what is now "
    f"as the baseline.",
)
def gate_command(  # noqa: PLR0917  typer makes options of them
    against: Annotated[
        str | None, typer.Option(metavar="REV", help="Compare with this git revision instead of the baseline.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Show what changes, then rewrite the baseline.")] = False,
    part: Annotated[PartChoice, typer.Option(help="What to judge.")] = PartChoice.all,
    data: Annotated[GateData, typer.Option(help="What the accuracies are of.")] = GateData.embedded,
    out: Annotated[Path, typer.Option(help="Folder for gate.json and gate.xml (JUnit).")] = Path("reports/gate"),
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> int:
    """Judge whether the code became slower or worse, by a gate that tests itself on every run."""
    if against and update:
        raise SpecError("--update takes what is measured now, so it does not go with --against; give one of them")
    from hw4.files import write_atomically
    from hw4.gate import run, verdicts
    from hw4.gate.baseline import write_baseline
    from hw4.records import environment

    where = environment(threads=1, dtype="float32")
    parts: list[verdicts.Part] = [known for known in ("timing", "accuracy") if part.value in (known, "all")]
    say = partial(print, flush=True)
    if update:
        commit = where.commit if not where.dirty else None
        try:
            baseline, findings = run.propose_baseline(parts, data=data.value, commit=commit, say=say)
        except verdicts.UnmeasurableError as error:
            print(f"hw4: {error}", file=sys.stderr)
            return UNMEASURABLE
        print(verdicts.table(findings))
        write_baseline(run.BASELINE, baseline)
        print(f"Baseline: {run.BASELINE}; commit it with the change that it belongs to.")
        return 0
    findings = run.run_gate(parts, data=data.value, against=against, say=say)
    verdict = verdicts.overall(findings)
    facts: dict[str, object] = {"against": against, "environment": where.model_dump()}
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "gate.json", verdicts.as_json(findings, facts))
    write_atomically(out / "gate.xml", verdicts.as_junit(findings))
    print(verdicts.table(findings))
    print(f"Verdict: {verdict}. Details: {out / 'gate.json'}, {out / 'gate.xml'}")
    return verdicts.EXIT_CODES[verdict]


@app.command("fetch", epilog="Example: 'HW4_DATA=/data hw4 fetch' downloads to /data and is found there later.")
def fetch_command(
    mirror: Annotated[
        list[str] | None, typer.Option(help="Address of a folder with all the files; may be given several times.")
    ] = None,
    debug: Debug = False,  # noqa: ARG001  read by main()
) -> None:
    """Download FashionMNIST (31 MB) and TREC to $HW4_DATA or the user's cache, checked against SHA-256 sums."""
    from hw4.data.locate import MIRRORS, TREC_MIRRORS, data_roots, fetch_fashion_mnist, fetch_trec

    root = data_roots()[0]
    print(f"Fetching FashionMNIST and TREC to {root} (files that are there and intact are kept).", flush=True)
    print(f"FashionMNIST is complete and verified in {fetch_fashion_mnist(root, mirrors=mirror or MIRRORS)}.")
    print(f"TREC is complete and verified in {fetch_trec(root, mirrors=mirror or TREC_MIRRORS)}.")
    print("The question vectors need spaCy's model: 'python -m spacy download en_core_web_sm' installs it.")


def main() -> None:
    """Run the command line; every expected error becomes one sentence on stderr, unless ``--debug`` is given."""
    try:
        code, sentence = app(prog_name="hw4", standalone_mode=False), ""
    except (Hw4Error, OSError, typer.TyperException) as error:
        if "--debug" in sys.argv:
            raise
        code, sentence = _explain(error)
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        sentence = "interrupted; finished runs are kept, and the same command goes on from there"
    if sentence:
        print(f"hw4: {sentence}", file=sys.stderr)
    sys.exit(code)


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for an expected error."""
    if isinstance(error, typer.TyperException):
        message = getattr(error, "format_message", lambda: str(error))()
        return USAGE, f"{message.replace('Value error, ', '').strip().rstrip('.')}; see 'hw4 --help'"
    if isinstance(error, SpecError):
        return USAGE, str(error)
    if isinstance(error, OSError) and error.filename:
        what_to_do = "see to that or choose another folder; nothing finished is lost"
        return FAILED, f"{error.filename}: {error.strerror}; {what_to_do}"
    return FAILED, str(error)

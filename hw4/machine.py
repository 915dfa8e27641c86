"""This machine and this checkout: what the processor is, one thread per process, and git without its caller's ways."""

import hashlib
import os
import platform
import re
import secrets
import subprocess
from functools import cache
from pathlib import Path

from hw4.errors import Hw4Error

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
"""To be set before numpy or torch loads: two threads beside a busy neighbour wait for each other.

And processes that are bound to processors, as some clusters' settings ask for, would all be bound to the first."""
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""For processes that are started: glibc would hand every large buffer back to the system, and ask for it again."""
VECTOR_LIMITS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
"""Variables by which torch and its library for convolutions are told which vector units to use."""


@cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, or macOS of all; nothing elsewhere."""
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return {"CPU part": asked.stdout.strip()} if asked.stdout.strip() else {}
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    except OSError:
        lines = []
    return {name.strip(): value.strip() for name, _, value in lines}


def processor_name() -> str:
    """The processor's name, with what decides how sums are rounded: its family, model and widest vector unit.

    Variables that keep torch's libraries from using that unit are part of it.
    """
    limits = "".join(f", {name}={os.environ[name]}" for name in VECTOR_LIMITS if os.environ.get(name))
    facts = _cpuinfo()
    if "model name" not in facts:
        return (platform.processor() or platform.machine()) + limits
    flags = facts.get("flags", "").split()
    unit = next((f", {name}" for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')}{unit}{limits})"


def processor_class() -> str:
    """Maker, kind and widest vector unit: processors of one class run the same code at the same speed."""
    facts = _cpuinfo()
    names = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU variant", "CPU part")
    known = [facts[name] for name in names if name in facts]
    flags = facts.get("flags", "").split()
    unit = [name for flag, name in (("avx512f", "AVX512"), ("avx2", "AVX2")) if flag in flags][:1]
    if facts.get("CPU part") == "0x000":  # what a guest on Apple's processors sees of all of them
        unit.append(hashlib.sha256(facts.get("Features", "").encode()).hexdigest()[:6])
    return " ".join([*(known or [platform.processor() or platform.machine()]), *unit])


def git(folder: Path, *arguments: str, stdin: bytes = b"", seconds: float = 120) -> bytes:
    """What git prints for a command in a folder; raises Hw4Error with git's own word for what went wrong.

    Git tells the hooks that it runs which index and which repository is being worked on, in variables; a command that
    inherits them works on those, wherever it is called. So none of them is handed on but settings (safe.directory).
    Nor does a look at what has changed renew the index.
    """
    local = set(_run("rev-parse", "--local-env-vars", env=dict(os.environ)).decode().split())
    local -= {"GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"}
    local |= {f"GIT_{how}_PATHSPECS" for how in ("LITERAL", "GLOB", "NOGLOB", "ICASE")}  # of an editor's hooks
    environment = {name: value for name, value in os.environ.items() if name not in local}
    words = ["--no-optional-locks", "-C", str(folder), *arguments]
    return _run(*words, env={**environment, "LC_ALL": "C"}, stdin=stdin, seconds=seconds)


def _run(*arguments: str, env: dict[str, str], stdin: bytes = b"", seconds: float = 120) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments], input=stdin, env=env, capture_output=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Hw4Error(f"git could not be run: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        fatal = [line for line in said if line.startswith(("fatal:", "error:"))]
        raise Hw4Error((fatal or said or ["git failed without a word"])[0])
    return done.stdout


LARGE_FILE = b"version https://git-lfs.github.com/spec/v1\n"
"""The beginning of a git-lfs pointer, which git keeps in the place of the file."""
UNFETCHED = [word for key in ("smudge=", "process=", "required=false") for word in ("-c", f"filter.lfs.{key}")]
"""Options by which git leaves such a pointer as it is: git-lfs would fetch the file, and need not be installed."""


def _large_file(folder: Path, pointer: bytes, name: Path) -> bytes:
    """The contents of a file that git-lfs keeps beside git's objects; raises Hw4Error where it does not."""
    common = os.fsdecode(git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir")).rstrip("\n")
    if found := re.search(rb"^oid sha256:([0-9a-f]{64})$", pointer, re.MULTILINE):
        digest = found[1].decode()
        kept = Path(common, "lfs", "objects", digest[:2], digest[2:4], digest)
        if kept.is_file():
            return kept.read_bytes()
    here = folder / name
    if here.is_file() and here.read_bytes().startswith(LARGE_FILE):  # nor is it in the work tree, so nothing needs it
        return pointer
    raise Hw4Error(f"fatal: {name} is kept by git-lfs, and not in this clone; run 'git lfs fetch' for that revision")


def _objects(folder: Path, *options: str, asked: list[bytes], names: list[bytes]) -> list[bytes]:
    """The contents of git's objects, in their order; raises Hw4Error with the name of one that is missing."""
    mark = secrets.token_hex(16).encode()  # git tells no length of what it has converted, so this stands in between
    lines = b"".join(each + b"\n" + mark + b"\n" for each in asked)
    said = git(folder, *UNFETCHED, "cat-file", "--batch=found", *options, stdin=lines)
    found = said.split(mark + b" missing\n")[: len(asked)]
    for name, contents in zip(names, found, strict=True):
        if not contents.startswith(b"found\n"):
            raise Hw4Error(f"fatal: {os.fsdecode(name)} is missing in the repository; is this clone complete?")
    return [contents.removeprefix(b"found\n")[:-1] for contents in found]


def commit_of(folder: Path, revision: str) -> str:
    """The commit that a revision names in a folder's repository; raises Hw4Error where it names none."""
    found = git(folder, "rev-parse", "--verify", "--end-of-options", revision).decode().strip()
    return git(folder, "rev-parse", "--verify", f"{found}^{{commit}}").decode().strip()  # ":/words" takes no more words


def write_revision(folder: Path, revision: str, into: Path) -> str:
    """Write the files of a revision of a folder's repository below another folder; returns the commit.

    They are read from git's objects one by one: no work tree, index or configuration of the repository is touched, and
    none is left out (export-ignore). They are converted as a checkout here converts them (line ends, encodings, $Id$,
    filters), or they would differ from today's. Submodules are left out. Raises Hw4Error.
    """
    commit = commit_of(folder, revision)
    raw, converted = list[tuple[bytes, bytes, bytes]](), list[tuple[bytes, bytes, bytes]]()
    for entry in filter(None, git(folder, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")):
        facts, _, name = entry.partition(b"\t")
        mode, kind, blob = facts.split()
        if kind == b"blob":  # git takes a name of two lines for two, and converts no link
            (raw if mode == b"120000" or b"\n" in name else converted).append((mode, blob, name))
    contents = list[bytes]()
    for files, options in ((raw, []), (converted, ["--filters"])):
        asked = [blob + b" " + name if options else blob for _, blob, name in files]
        contents += _objects(folder, *options, asked=asked, names=[name for *_, name in files])
    for (mode, _, name), content in zip([*raw, *converted], contents, strict=True):
        path = into / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == b"120000":
            path.symlink_to(os.fsdecode(content))
            continue
        kept = _large_file(folder, content, path.relative_to(into)) if content.startswith(LARGE_FILE) else content
        path.write_bytes(kept)
        path.chmod(0o755 if mode == b"100755" else 0o644)
    return commit

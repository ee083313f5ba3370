"""On the host: runs each stage, prints a line for each of its checks, and writes a JUnit file.

Most stages run in a guest. ``eif`` runs here, beside an emulated enclave; ``pair`` runs in a guest beside one. All of
them are emulated by software (QEMU's TCG): nothing is asked of this machine but QEMU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final
from xml.etree import ElementTree

from tests.nitro.hypervisor import Hypervisor
from tests.nitro.qemu import PlayedDevice, Qemu, find_qemu, machine
from tests.vm.checks import END, MARK, Result

_RESULTS_BYTES: Final = 64 << 20
_QUIET: Final = "console=ttyS0 quiet loglevel=4 mitigations=off no5lvl tsc=reliable random.trust_cpu=on net.ifnames=0"


@dataclass(frozen=True)
class Stage:
    """What a stage's guest needs.

    :ivar limit: seconds after which it is ended, those of `asked` aside.
    :ivar memory: MiB.
    :ivar systemd: whether systemd is its init; a script is faster.
    :ivar enclave: whether it needs the enclave image, and an emulated enclave beside its guest.
    :ivar here: whether it runs on this machine and not in a guest.
    :ivar asked: whether it runs only when it is named, for as long as was asked.
    """

    limit: int
    memory: int
    systemd: bool
    enclave: bool = False
    here: bool = False
    asked: bool = False


STAGES: Final = {
    "loopback": Stage(limit=300, memory=1024, systemd=False),
    "systemd": Stage(limit=900, memory=1536, systemd=True),
    "eif": Stage(limit=1800, memory=0, systemd=False, enclave=True, here=True),
    "pair": Stage(limit=1800, memory=1536, systemd=True, enclave=True),
    "soak": Stage(limit=300, memory=2048, systemd=False, asked=True),
    "pair-soak": Stage(limit=900, memory=2048, systemd=True, enclave=True, asked=True),
}

#: Seconds within which a guest that has run out of time hands over what it has.
_FAREWELL: Final = 30

#: Guests at a time: each has two processors, and is rarely busy on both.
_AT_A_TIME: Final = 2


@dataclass
class Outcome:
    """What a stage's guest has told.

    :ivar seconds: from its start to its end, on the host's clock.
    """

    stage: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """What all stages of a run have in common.

    :ivar image: the directory with the guest's image.
    :ivar payload: the tar file that the guest gets.
    :ivar seconds: for stages that last as long as asked.
    :ivar eif: the enclave image.
    """

    image: Path
    payload: Path
    seconds: int
    eif: Path

    def limit(self, stage: str) -> int:
        """Seconds after which a stage's guest is ended."""
        needs = STAGES[stage]
        return needs.limit + self.seconds if needs.asked else needs.limit


class Guests:
    """The processes of the guests, none of which outlives the run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # a signal's handler may come while it is held
        self._ended = False

    @contextmanager
    def start(self, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
        """A child that does not outlive the block.

        :raises InterruptedError: all have been ended.
        """
        with self._lock:
            if self._ended:
                raise InterruptedError("no stage is started any more")
            child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
        with child:
            try:
                yield child
            finally:
                child.terminate()
                killing = threading.Timer(10, child.kill)
                killing.start()
                child.wait()
                killing.cancel()
                self._running.discard(child)

    def end(self) -> None:
        """End all, and start no other."""
        with self._lock:
            self._ended = True
            for child in list(self._running):
                child.terminate()


def command(run: Run, qemu: Qemu, stage: str, out: Path, devices: Sequence[PlayedDevice] = ()) -> list[str]:
    """QEMU's command line. The guest's root is the image, of which it may change its own view only.

    :param devices: what this machine plays for the guest.
    """
    image, payload, limit = run.image, run.payload, run.limit(stage)
    needs = STAGES[stage]
    init = "" if needs.systemd else "init=/opt/guest/init.sh"
    disks = [
        f"format=raw,snapshot=on,file={image / 'root.ext4'}",
        f"format=raw,readonly=on,file={payload}",
        f"format=raw,cache=unsafe,file={out / 'results.tar'}",
    ]
    arguments = ["timeout", "-k", "5", str(limit)]
    arguments += [*qemu.command, *machine("q35", needs.memory, devices, processors=2)]
    arguments += ["-kernel", str(image / "vmlinuz")]
    asked = f"stage={stage} seconds={run.seconds} limit={limit - _FAREWELL}"
    arguments += ["-append", f"{_QUIET} root=/dev/nvme0n1 rootfstype=ext4 rw {init} {asked}"]
    arguments += ["-serial", f"file:{out / 'console.log'}", "-chardev", "stdio,id=live,signal=off"]
    arguments += ["-serial", "chardev:live"]
    for number, disk in enumerate(disks):
        arguments += [
            "-drive",
            f"if=none,id=disk{number},{disk}",
            "-device",
            f"nvme,drive=disk{number},serial={number}",
        ]
    return arguments


@contextmanager
def started(run: Run, stage: str, out: Path) -> Iterator[list[str]]:
    """The command of *stage*, with what has to run beside it; its logs are kept in *out*."""
    needs = STAGES[stage]
    qemu = find_qemu()
    if not needs.enclave:
        yield command(run, qemu, stage, out)
        return
    directory = Path(tempfile.mkdtemp(prefix="np-"))  # UNIX sockets need short paths
    try:
        if needs.here:
            limit = ["timeout", "-k", "20", str(run.limit(stage))]
            yield [*limit, sys.executable, "-u", "-m", "tests.nitro.stage_eif", str(run.eif), str(directory)]
            return
        hypervisor = Hypervisor(qemu, run.eif, directory)
        try:
            hypervisor.open()
            device = ("vsock", hypervisor.parent_socket, "vhost-user-vsock-pci,chardev={chardev}")
            yield command(run, qemu, stage, out, [device])
        finally:
            hypervisor.close()
    finally:
        for path in [*directory.rglob("*.log"), *directory.rglob("*.txt"), *directory.rglob("*.json")]:
            shutil.copy(path, out)
        shutil.rmtree(directory)


def run_stage(run: Run, guests: Guests, stage: str, out: Path) -> Outcome:
    """Start the stage, follow it to its end, and keep its output, console and files in *out*."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with (out / "results.tar").open("wb") as results:
        results.truncate(_RESULTS_BYTES)
    outcome = Outcome(stage)
    begun = time.monotonic()
    with (
        (out / "live.log").open("w") as log,
        started(run, stage, out) as words,
        guests.start(words) as guest,
    ):
        assert guest.stdout is not None
        line = ""
        for line in guest.stdout:
            log.write(line)
            log.flush()
            if line.startswith(MARK):
                result = Result(**json.loads(line.removeprefix(MARK)))
                outcome.results.append(result)
                if result.name != END:
                    print(_line(stage, result), flush=True)
        status = guest.wait()
    outcome.seconds = time.monotonic() - begun
    _unpack(out)
    if END not in {result.name for result in outcome.results}:
        how = "it took too long" if status == 124 else f"it ended with {status}"
        detail = f"the stage did not come to its end: {how}; it said last {line.strip()!r}; see {out}"
        result = Result(END, "failed", outcome.seconds, detail)
        outcome.results.append(result)
        print(_line(stage, result), flush=True)
    return outcome


def _unpack(out: Path) -> None:
    archive = out / "results.tar"
    if not archive.read_bytes()[:1024].strip(b"\0"):
        archive.unlink()  # of a stage that ran here, or a guest that did not get so far
        return
    try:
        with tarfile.open(archive, "r:") as files:
            files.extractall(out, filter="data")
    except tarfile.TarError as error:
        print(f"no files from the guest: {error}", file=sys.stderr)
    archive.unlink()


def _line(stage: str, result: Result) -> str:
    word = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[result.outcome]
    detail = result.detail.strip()
    if result.outcome == "passed":
        detail = detail.partition("\n")[0]
    return f"{word} {stage}.{result.name} ({result.seconds:.1f} s)" + (f": {detail}" if detail else "")


def junit(outcomes: Sequence[Outcome]) -> bytes:
    """The results as JUnit XML."""
    suites = ElementTree.Element("testsuites", name="nitroproxy vm")
    for outcome in outcomes:
        failures = sum(result.outcome == "failed" for result in outcome.results)
        skipped = sum(result.outcome == "skipped" for result in outcome.results)
        suite = ElementTree.SubElement(suites, "testsuite", name=outcome.stage, time=f"{outcome.seconds:.3f}")
        for name, count in (("tests", len(outcome.results)), ("failures", failures), ("skipped", skipped)):
            suite.set(name, str(count))
        for result in outcome.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"vm.{outcome.stage}", name=result.name, time=f"{result.seconds:.3f}"
            )
            if result.outcome == "failed":
                ElementTree.SubElement(case, "failure", message=result.detail.partition("\n")[0]).text = result.detail
            elif result.outcome == "skipped":
                ElementTree.SubElement(case, "skipped", message=result.detail)
            else:
                ElementTree.SubElement(case, "system-out").text = result.detail
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document


def main(arguments: Sequence[str]) -> int:
    """Run the stages; 0 when every check has passed."""
    parser = argparse.ArgumentParser(prog="scripts/dev.sh vm", usage="%(prog)s [--seconds N] [STAGE...]")
    parser.add_argument("--image", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--payload", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--eif", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=600, help="how long a soak lasts [600]")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}; all without a name")
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")

    run = Run(options.image, options.payload, options.seconds, options.eif)
    guests = Guests()

    def stop(number: int, frame: FrameType | None) -> None:
        guests.end()
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    usual = [stage for stage, needs in STAGES.items() if not needs.asked]
    wanted = [stage for stage in STAGES if stage in (options.stages or usual)]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        running = [threads.submit(run_stage, run, guests, stage, options.out / stage) for stage in wanted]
        outcomes = [stage.result() for stage in running]
    file = options.out / "junit.xml"
    file.write_bytes(junit(outcomes))
    results = [
        result for outcome in outcomes for result in outcome.results if result.name != END or result.outcome == "failed"
    ]
    counts = {word: sum(result.outcome == word for result in results) for word in ("passed", "failed", "skipped")}
    took = ", ".join(f"{outcome.stage} {outcome.seconds:.0f} s" for outcome in outcomes)
    print(f"vm: {took}; results in {file}")
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

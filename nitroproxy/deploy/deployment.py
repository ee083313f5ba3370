"""A deployment, an upgrade and the way back: the steps in their order."""

from __future__ import annotations

import argparse
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nitroproxy.deploy import allocator, environment, install, instance, resources, state
from nitroproxy.deploy.artifacts import Artifacts
from nitroproxy.deploy.changes import Changes
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.image import check_image, check_measurements, pcr0_of
from nitroproxy.deploy.machine import CommandFailed, Machine
from nitroproxy.deploy.remove import environments
from nitroproxy.deploy.start import ENCLAVE, HOST, SOCKET, Units, active, wait_until_ready

if TYPE_CHECKING:
    from nitroproxy.config.ends import Enclave
    from nitroproxy.config.schema import Settings

Say = Callable[[str], object]
_CONFIGURATION = "/etc/nitroproxy/config.json"
_ENVIRONMENT = "/etc/nitroproxy/nitroproxy.env"
#: Seconds that the version before may take to be ready again.
_UNDO_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What the checks have found.

    :ivar settings: the configuration that will be in force.
    :ivar directory: of the environment.
    :ivar allocates: the allocator's file has to be edited.
    :ivar any_kernel: the image may be one of the emulator.
    """

    artifacts: Artifacts
    settings: Settings
    eif: Path
    pcr0: str
    wheels: list[Path]
    digest: str
    directory: str
    allocates: bool
    any_kernel: bool


def deploy(machine: Machine, artifacts: Artifacts, arguments: argparse.Namespace, *, say: Say) -> None:
    """Deploy, or upgrade.

    :raises Refused: when a check fails, before anything has been changed; when it does not start, after everything has
        been changed back.
    """
    plan = check(machine, artifacts, arguments, say=say)
    _tell_pcr0(machine, plan, say)
    if arguments.dry_run:
        _tell_plan(machine, plan, say)
        return
    changes = Changes()
    try:
        changed = _change(machine, plan, changes, arguments.timeout, say)
    except BaseException as error:
        _undo(machine, changes, say)
        if isinstance(error, OSError):
            raise Refused(Status.INSTANCE, str(error)) from error
        raise
    if not changed:
        say("unchanged")
    _show_status(machine, plan.settings, say)


def check(machine: Machine, artifacts: Artifacts, arguments: argparse.Namespace, *, say: Say) -> Plan:
    """Check everything; nothing is changed.

    :raises Refused: naming what is wrong.
    """
    say(f"system     {instance.check_system(machine)}")
    say(f"enclaves   {instance.check_enclaves(machine)}")
    settings = load_settings(machine, artifacts)
    eif = arguments.eif or artifacts.eif
    pcr0 = check_image(eif, settings, any_kernel=arguments.any_kernel)
    if arguments.eif is None:
        check_measurements(eif, pcr0)
    say(f"image      {eif.name}, {eif.stat().st_size} bytes, PCR0 {pcr0}")
    enclave = settings.enclave
    resources.check_cores(machine, enclave.cpu_count)
    running = resources.running_enclaves(machine)
    own = _own_enclave(machine, running)
    lack = resources.short_of(machine, enclave.memory_mb, enclave.cpu_count)
    if lack and arguments.allocate:
        _check_allocation(machine, running)
        say(f"resources  {lack}: will be edited")
    else:
        say(f"resources  {resources.check_pool(machine, enclave.memory_mb, enclave.cpu_count, own)}")
    resources.check_cid(enclave.cid, running, own)
    say(f"digests    {artifacts.check_sums()} files")
    if not (active(machine, SOCKET) or active(machine, HOST)):
        resources.check_port(settings.host_proxy.interface, settings.host_proxy.port)
    wheels = artifacts.wheels(machine.architecture)
    digest = artifacts.digest(wheels)
    return Plan(
        artifacts=artifacts,
        settings=settings,
        eif=eif,
        pcr0=pcr0,
        wheels=wheels,
        digest=digest,
        directory=environment.place(machine, artifacts.version, digest),
        allocates=bool(lack),
        any_kernel=arguments.any_kernel,
    )


def load_settings(machine: Machine, artifacts: Artifacts) -> Settings:
    """The configuration that will be in force: the edited one of the machine, or that of the artifacts.

    :raises Refused: with every error in it.
    """
    from nitroproxy.commands.install_units import CONFIG, InstallError, is_edited

    try:
        edited = is_edited(machine.root, CONFIG)
    except InstallError as error:
        raise Refused(Status.INSTANCE, str(error)) from error
    return _load(machine, machine.path(_CONFIGURATION) if edited else artifacts.directory / "etc" / "config.json")


def _load(machine: Machine, path: Path) -> Settings:
    from nitroproxy.config.load import ConfigurationError, load

    environ = {}
    for line in (machine.read(_ENVIRONMENT) or "").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            environ[name] = " ".join(shlex.split(value)) if value.count('"') % 2 == 0 else value
    try:
        return load(str(path), options=[], environ=environ).settings
    except ConfigurationError as error:
        raise Refused(Status.USAGE, f"the configuration cannot be used: {error}") from error


def _enclave_in_force(machine: Machine) -> Enclave | None:
    """The present configuration of the enclave; None without one that can be used."""
    try:
        return _load(machine, machine.path(_CONFIGURATION)).enclave
    except Refused:
        return None


def _own_enclave(machine: Machine, running: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The enclave of nitroproxy-eif.service, as its record names it."""
    from nitroproxy.daemon.enclave_record import read_record

    try:
        record = read_record(machine.path("/run/nitroproxy"))
    except (OSError, ValueError):
        record = None
    return next((one for one in running if record is not None and one.get("EnclaveID") == record.enclave_id), None)


def _check_allocation(machine: Machine, running: list[dict[str, Any]]) -> None:
    pool = allocator.read_pool(machine)
    if pool.named or pool.parts != 1:
        raise Refused(Status.RESOURCES, f"{allocator.FILE}: names CPUs or several pools: edit it yourself")
    if running:
        raise Refused(
            Status.RESOURCES,
            f"--allocate: {allocator.SERVICE} cannot be restarted while {running[0].get('EnclaveID')} runs: systemctl "
            " stop nitroproxy-eif, or nitro-cli terminate-enclave --all",
        )


def _tell_pcr0(machine: Machine, plan: Plan, say: Say) -> None:
    """Before the image is exchanged: whoever verifies the enclave has to know the new one."""
    old = pcr0_of(machine.path(state.EIF))
    if old is not None and old != plan.pcr0:
        say(
            f"PCR0 changes from {old} to {plan.pcr0}.\n"
            "Clients that verify the enclave, and KMS key policies, must accept the new PCR0 before it starts, and the "
            "old one until it has gone: add the entry of policy.json, beside this image, to their policies first."
        )


def _tell_plan(machine: Machine, plan: Plan, say: Say) -> None:
    if plan.allocates:
        say(f"would edit {allocator.FILE}")
    if not environment.is_complete(machine, plan.directory, plan.digest):
        say(f"would make {plan.directory}")
    if environment.current(machine) != plan.directory:
        say(f"would link {environment.LINK} to it, and install units and configuration")
    if not state.same_content(machine.path(state.EIF), plan.eif):
        say(f"would install {state.EIF} and restart the enclave")
    say("dry run: nothing was changed")


def _change(machine: Machine, plan: Plan, changes: Changes, timeout: float, say: Say) -> bool:
    """Make the changes, start, wait; whether anything was changed."""
    units, before, enclave = Units(machine, changes), state.read_state(machine), _enclave_in_force(machine)
    allocated = _allocate(machine, plan, changes, say)
    if not environment.is_complete(machine, plan.directory, plan.digest):
        say(f"making     {plan.directory}")
        changes.did(lambda: shutil.rmtree(machine.path(plan.directory), ignore_errors=True))
        environment.make(machine, plan.directory, plan.wheels, plan.digest)
    changed = install.Changed()
    changes.keep(state.files(machine))
    config = install.put_copy(machine, state.CONFIG, plan.artifacts.directory / "etc" / "config.json", changes)
    install.put_link(machine, plan.directory, changes, changed)
    install.put_files(machine, plan.directory, changes, changed, say)
    install.put_drop_ins(machine, plan.settings.host_proxy, changes, changed, any_kernel=plan.any_kernel)
    image = install.put_copy(machine, state.EIF, plan.eif, changes)
    changed.enclave = changed.enclave or image or plan.settings.enclave != enclave
    running = units.running(credentials=_wants_credentials(plan.settings))
    if changed.anything or not running:
        _run(units, changed, machine, plan.settings, timeout, say)
    if changed.anything or config:
        _note_generation(machine, plan, before)
    return changed.anything or allocated or not running


def _wants_credentials(settings: Settings) -> bool:
    return settings.credentials.role is not None


def _run(
    units: Units, changed: install.Changed, machine: Machine, settings: Settings, timeout: float, say: Say
) -> None:
    started = time.monotonic()
    ended = units.run(host=changed.host, socket=changed.socket, enclave=changed.enclave)
    units.run_credentials(wanted=_wants_credentials(settings), host=changed.host)
    wait_until_ready(machine, settings.host_proxy, timeout)
    now = time.monotonic()
    if ended is not None:
        say(f"enclave    exchanged: for {now - ended:.1f} s at most requests got 503 with Retry-After")
    say(f"ready      after {now - started:.1f} s")


def _note_generation(machine: Machine, plan: Plan, before: state.State | None) -> None:
    """Note what is deployed now and what before; environments of neither are removed."""
    now = state.Generation(plan.artifacts.version, plan.directory, plan.any_kernel)
    if before is not None:
        for place in (state.CONFIG, state.EIF):
            state.commit(machine, place)
    state.write_state(machine, state.State(now, before.current if before is not None else None))
    kept = {plan.directory, before.current.directory if before is not None else None}
    for directory in environments(machine):
        if directory not in kept:
            shutil.rmtree(machine.path(directory), ignore_errors=True)


def _allocate(machine: Machine, plan: Plan, changes: Changes, say: Say) -> bool:
    if not plan.allocates:
        return False
    path, backup = machine.path(allocator.FILE), allocator.backup_of(machine)
    if not backup.exists():
        changes.keep([backup])
        state.replace(backup, path.read_bytes())
    changes.did(lambda: machine.run("systemctl", "restart", allocator.SERVICE))
    changes.keep([path])
    enclave = plan.settings.enclave
    state.replace(path, allocator.edited(path.read_text("utf-8"), enclave.memory_mb, enclave.cpu_count).encode())
    try:
        machine.run("systemctl", "enable", "--quiet", allocator.SERVICE)
        machine.run("systemctl", "restart", allocator.SERVICE)
    except CommandFailed as error:
        raise Refused(Status.RESOURCES, f"{allocator.FILE}: the new values were not accepted: {error}") from error
    say(f"allocated  {enclave.memory_mb} MiB and {enclave.cpu_count} CPUs; the file before is {backup}")
    return True


def go_back(machine: Machine, timeout: float, *, dry: bool, say: Say) -> None:
    """Put the generation before this one in force.

    :raises Refused: when there is none, or it does not start; then the present one is in force again.
    """
    now = state.read_state(machine)
    if now is None or now.previous is None or not machine.path(now.previous.directory).is_dir():
        raise Refused(Status.USAGE, "there is no version to go back to")
    say(f"back from {now.current.version} to {now.previous.version}, {now.previous.directory}")
    if dry:
        say("dry run: nothing was changed")
        return
    changes = Changes()
    try:
        units, enclave = Units(machine, changes), _enclave_in_force(machine)
        changed = install.Changed(enclave=not _same_image(machine))
        changes.keep(state.files(machine))
        for place in (state.CONFIG, state.EIF):
            changes.did(partial(state.swap_previous, machine, place))
            state.swap_previous(machine, place)
        install.put_link(machine, now.previous.directory, changes, changed)
        install.put_files(machine, now.previous.directory, changes, changed, say)
        settings = _load(machine, machine.path(_CONFIGURATION))
        changed.enclave = changed.enclave or settings.enclave != enclave
        any_kernel = now.previous.any_kernel
        install.put_drop_ins(machine, settings.host_proxy, changes, changed, any_kernel=any_kernel)
        _run(units, changed, machine, settings, timeout, say)
    except BaseException as error:
        _undo(machine, changes, say)
        if isinstance(error, OSError):
            raise Refused(Status.INSTANCE, str(error)) from error
        raise
    state.write_state(machine, state.State(now.previous, now.current))
    _show_status(machine, settings, say)


def _same_image(machine: Machine) -> bool:
    return state.same_content(machine.path(state.EIF), machine.path(f"{state.EIF}.previous"))


def _undo(machine: Machine, changes: Changes, say: Say) -> None:
    """Undo the changes, and wait for what ran before."""
    say("undoing what was changed")
    for problem in changes.undo():
        say(f"  not undone: {problem}")
    if not active(machine, ENCLAVE):
        return
    try:
        wait_until_ready(machine, _load(machine, machine.path(_CONFIGURATION)).host_proxy, _UNDO_SECONDS)
    except Refused as error:
        say(f"the version before runs again, and is not ready: {error}")
    else:
        say("the version before is ready again")


def _show_status(machine: Machine, settings: Settings, say: Say) -> None:
    gateway = settings.host_proxy
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.interface, gateway.interface)  # noqa: S104
    url = f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"
    try:
        say(machine.run(machine.path(environment.LINK) / "bin" / "nitroproxy", "status", "--url", url).rstrip())
    except CommandFailed as error:
        say(str(error))

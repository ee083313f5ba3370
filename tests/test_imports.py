"""The arrows of the architecture: who may import whom. Read from the source, so that a lazy import counts too."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nitroproxy"


def modules() -> dict[str, set[str]]:
    """Every module of the package, and the modules that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = imports(ast.parse(path.read_text("utf-8")))
    return found


def imports(tree: ast.AST) -> set[str]:
    """What the code below *tree* imports."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        names |= imports(node)
    return names


class ImportTests(SynchronousTestCase):
    """The rules, each over all modules that it is about."""

    def setUp(self) -> None:
        self.modules = modules()
        self.assertIn("nitroproxy.proxy.exchange", self.modules)

    def offenders(self, of: tuple[str, ...], forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
        def below(name: str, roots: tuple[str, ...]) -> bool:
            return any(name == root or name.startswith(root + ".") for root in roots)

        return [
            f"{module} imports {name}"
            for module, names in self.modules.items()
            if below(module, of) and not below(module, but)
            for name in sorted(names)
            if below(name, forbidden)
        ]

    def test_pure(self) -> None:
        """What decides is pure: no Twisted, no sockets, no reactor."""
        pure = (
            "nitroproxy.errors",
            "nitroproxy.policy",
            "nitroproxy.target",
            "nitroproxy.http1",
            "nitroproxy.preface",
            "nitroproxy.config.load",
            "nitroproxy.image",
            "nitroproxy.kms",
            "nitroproxy.credentials.document",
        )
        self.assertEqual(self.offenders(pure, ("twisted", "socket", "OpenSSL", "zope")), [])

    def test_kms(self) -> None:
        """What KMS encrypts is opened with a parser library, cryptography and nothing else of nitroproxy."""
        others = tuple(name for name in self.modules if name.count(".") == 1 and name != "nitroproxy.kms")
        self.assertEqual(self.offenders(("nitroproxy.kms",), others), [])

    def test_image(self) -> None:
        """Images are read and built with the standard library, a parser library and nothing else of nitroproxy."""
        others = tuple(name for name in self.modules if name.count(".") == 1 and name != "nitroproxy.image")
        self.assertEqual(self.offenders(("nitroproxy.image",), others), [])

    def test_below(self) -> None:
        """vsock and sockets know Twisted and themselves."""
        for package in ("nitroproxy.vsock", "nitroproxy.sockets"):
            others = tuple(name for name in self.modules if name.count(".") == 1 and name != package)
            self.assertEqual(self.offenders((package,), others), [])

    def test_engine(self) -> None:
        """The engine knows no socket, no role and no configuration."""
        ours = ("host", "enclave", "vsock", "config", "daemon", "workers", "tls", "commands", "telemetry")
        forbidden = ("socket", "OpenSSL", *(f"nitroproxy.{name}" for name in ours))
        self.assertEqual(self.offenders(("nitroproxy.proxy",), forbidden), [])

    def test_deploy(self) -> None:
        """deploy.sh runs on a bare Python: until the wheels are unpacked there is the standard library alone."""
        self.assertEqual(self.offenders(("nitroproxy.deploy",), ("twisted", "nitroproxy.daemon.wiring")), [])
        early = ("nitroproxy.deploy.", "nitroproxy.commands.nitro_cli.")
        for path in sorted((PACKAGE / "deploy").glob("*.py")):
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for name in imports(ast.Module([node], [])):
                        known = name.split(".")[0] in sys.stdlib_module_names or f"{name}.".startswith(early)
                        self.assertTrue(known, f"{path.name} imports {name} before the wheels are unpacked")

    def test_no_circle(self) -> None:
        """No two modules need each other, be it for types alone: each can be read on what it imports."""
        graph = {name: imported & self.modules.keys() - {name} for name, imported in self.modules.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(f"a circle: {' -> '.join(error.args[1])}")

    def test_roles(self) -> None:
        """Host and enclave never import each other."""
        self.assertEqual(self.offenders(("nitroproxy.host",), ("nitroproxy.enclave",)), [])
        self.assertEqual(self.offenders(("nitroproxy.enclave",), ("nitroproxy.host",)), [])

    def test_roots(self) -> None:
        """Only the composition roots read the configuration and touch the global reactor; no module imports them."""
        everything, roots = (
            ("nitroproxy",),
            tuple(f"nitroproxy.{role}.service" for role in ("host", "enclave", "credentials")),
        )
        self.assertEqual(self.offenders(everything, roots), [])
        readers = (
            *roots,
            "nitroproxy.enclave.init_root",
            "nitroproxy.host.components",
            "nitroproxy.host.once",
            "nitroproxy.enclave.components",
            "nitroproxy.enclave.forwards",
            "nitroproxy.enclave.once",
            "nitroproxy.enclave.shipped_log",
            "nitroproxy.credentials.components",
            "nitroproxy.daemon.role",
            "nitroproxy.daemon.alone",
            "nitroproxy.daemon.wiring",
            "nitroproxy.daemon.ingress",
            "nitroproxy.daemon.reload",
            "nitroproxy.workers.start",
            "nitroproxy.workers.supervisor_daemon",
            "nitroproxy.workers.worker_daemon",
            "nitroproxy.commands",
            "nitroproxy.config",
            "nitroproxy.deploy",
        )
        composing = ("nitroproxy.config", "nitroproxy.daemon.wiring", "nitroproxy.daemon.service")
        # A policy file has comments as the configuration has, and is read by the same reader.
        reader = "nitroproxy.attestation.policy_file imports nitroproxy.config.jsonc"
        found = [line for line in self.offenders(everything, composing, readers) if not line.startswith(reader)]
        self.assertEqual(found, [])
        outside = (*roots, "nitroproxy.enclave.init_root", "nitroproxy.demo")
        self.assertEqual(self.offenders(everything, ("twisted.internet.reactor",), outside), [])

    def test_openssl(self) -> None:
        """OpenSSL and service-identity are for `tls` alone (the demo's upstream is a server of its own)."""
        outside = ("nitroproxy.tls", "nitroproxy.demo")
        self.assertEqual(self.offenders(("nitroproxy",), ("OpenSSL", "service_identity"), outside), [])

    def test_heavy_imports(self) -> None:
        """What installs a reactor or was ruled out is imported nowhere on the data path."""
        forbidden = ("twisted.web.proxy", "twisted.web.client", "treq", "requests")
        # A client of enclaves, which no daemon imports.
        client = "nitroproxy.tls.attested"
        self.assertEqual(self.offenders(("nitroproxy",), forbidden, ("nitroproxy.demo", client)), [])
        self.assertEqual(self.offenders(("nitroproxy",), (client,), ("nitroproxy.commands",)), [])


class MapTests(SynchronousTestCase):
    """The docstrings that explain the tree."""

    def test_packages(self) -> None:
        """A package's docstring names each of its modules, and no others, in backquotes."""
        for path in sorted(PACKAGE.rglob("__init__.py")):
            if path.parent == PACKAGE:
                continue
            named = set(
                re.findall(r"(?<!`)`([a-z0-9_]+)`(?!`)", ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
            )
            modules = {module.stem for module in path.parent.glob("*.py")} - {"__init__", "__main__"}
            self.assertEqual(named, modules, path.parent.name)

    def test_map(self) -> None:
        """What the map names exists, and it names every package."""
        found = modules()
        text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))) or ""
        named = set(re.findall(r"(?<!`)`([a-z0-9_]+(?:\.[a-z0-9_]+)*)`(?!`)", text))
        self.assertEqual({name for name in named if f"nitroproxy.{name}" not in found}, set())
        packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        self.assertEqual(packages - {name.partition(".")[0] for name in named}, set())

"""Tests of `nitroproxy.config.load`, and of the configurations that are published in etc/."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import json5
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config import load as load_module
from nitroproxy.config.load import Configuration, ConfigurationError, load
from nitroproxy.config.schema import Settings

ETC = Path(__file__).parent.parent / "etc"


class LoadCase(SynchronousTestCase):
    """Loads configurations without looking at this machine's."""

    def setUp(self) -> None:
        """There is no file in the default place."""
        self.patch(load_module, "DEFAULT_PATH", self.mktemp())

    def file(self, content: object) -> str:
        """The path of a new file with *content*: text, or what to write as JSON."""
        path: str = self.mktemp()
        Path(path).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def load(
        self, path: str | None = None, options: Sequence[str] = (), environ: dict[str, str] | None = None
    ) -> Configuration:
        """The configuration made of these sources."""
        return load(path, options=options, environ=environ or {})

    def problems(
        self, path: str | None = None, options: Sequence[str] = (), environ: dict[str, str] | None = None
    ) -> tuple[str, ...]:
        """What is wrong with these sources."""
        error: ConfigurationError = self.assertRaises(ConfigurationError, self.load, path, options, environ)
        self.assertEqual(str(error).splitlines(), list(error.problems))
        return error.problems


class SourceTests(LoadCase):
    """Where values come from."""

    def test_defaults(self) -> None:
        """Without any source there are the defaults."""
        configuration = self.load()
        self.assertEqual(configuration.settings, Settings())
        self.assertEqual(configuration.source_of("host_proxy.port"), "default")
        self.assertFalse(configuration.debug_mode)
        self.assertIsNone(configuration.path)

    def test_precedence(self) -> None:
        """The command line goes before the environment, that before the file, that before the default."""
        path = self.file({"host_proxy": {"port": 1}, "enclave": {"port": 2, "cid": 20}, "limits": {"connections": 3}})
        environ = {"HOST_PROXY_PORT": "11", "ENCLAVE_PORT": "12", "LOG_LEVEL": "warn"}
        found = self.load(path, ["host_proxy.port=21", "logging.format=json"], environ)
        settings = found.settings
        self.assertEqual((settings.host_proxy.port, found.source_of("host_proxy.port")), (21, "option --set"))
        self.assertEqual((settings.enclave.port, found.source_of("enclave.port")), (12, "env ENCLAVE_PORT"))
        self.assertEqual((settings.logging.level, found.source_of("logging.level")), ("WARN", "env LOG_LEVEL"))
        self.assertEqual((settings.enclave.cid, found.source_of("enclave.cid")), (20, path))
        self.assertEqual((settings.limits.connections, found.source_of("limits.connections")), (3, path))
        self.assertEqual((settings.egress.port, found.source_of("egress.port")), (5001, "default"))
        self.assertEqual((settings.logging.format, found.source_of("logging.format")), ("json", "option --set"))

    def test_every_key_from_every_source(self) -> None:
        """Every key can be set by the file, by its variable and by the command line."""
        plain = msgspec.to_builtins(Settings())
        for section, keys in plain.items():
            for name, value in keys.items():
                key, text = f"{section}.{name}", json.dumps(value)
                variable = f"NITROPROXY_{section}_{name}".upper()
                for found, source in (
                    (path := self.file({section: {name: value}}), None),
                    (None, f"env {variable}"),
                    (None, "option --set"),
                ):
                    environ = {variable: text} if source and source.startswith("env") else {}
                    options = [f"{key}={text}"] if source == "option --set" else []
                    configuration = self.load(found, options, environ)
                    self.assertEqual(configuration.settings, Settings(), key)
                    self.assertEqual(configuration.source_of(key), source or path)

    def test_cid_of_another(self) -> None:
        """A CID that has another owner is refused with the owner's name: 3 is the parent instance's."""
        for cid, whose in ((3, "the parent instance, where the host daemon runs"), (2, "hypervisor"), (1, "loopback")):
            path = self.file({"enclave": {"cid": cid}})
            [problem] = self.problems(path)
            self.assertTrue(problem.startswith("enclave.cid: expected an integer 4..4294967294"), problem)
            self.assertIn(f"got {cid} (from {path}): CID {cid} is ", problem)
            self.assertIn(whose, problem)

    def test_later_option(self) -> None:
        """Of two options for one key the later one counts."""
        self.assertEqual(self.load(options=["enclave.cid=20", "enclave.cid=21"]).settings.enclave.cid, 21)

    def test_long_variable(self) -> None:
        """Of a short and a long variable for one key the long one counts."""
        found = self.load(environ={"NITROPROXY_ENCLAVE_CID": "20", "ENCLAVE_CID": "21"})
        self.assertEqual(found.settings.enclave.cid, 20)
        self.assertEqual(found.source_of("enclave.cid"), "env NITROPROXY_ENCLAVE_CID")

    def test_lists(self) -> None:
        """A list comes as JSON or with commas, and replaces the one below it."""
        self.assertEqual(
            self.load(environ={"NITROPROXY_EGRESS_ALLOW": '["*:443", "a.example:80"]'}).settings.egress.allow,
            ("*:443", "a.example:80"),
        )
        found = self.load(self.file({"egress": {"deny": ["a.example:*"]}}), ["egress.deny=b.example:*,c.example:*"])
        self.assertEqual(found.settings.egress.deny, ("b.example:*", "c.example:*"))

    def test_empty_variable(self) -> None:
        """An empty variable counts as absent."""
        environ = {"ENCLAVE_CID": "", "DEBUG_MODE": "", "NITROPROXY_TLS_CA_FILE": "", "NITROPROXY_CONFIG": ""}
        found = self.load(environ=environ)
        self.assertEqual(found.settings, Settings())
        self.assertEqual(found.source_of("DEBUG_MODE"), "default")

    def test_empty_list_variable(self) -> None:
        """An empty allow list in the environment is not taken for the default, which allows more: it is refused."""
        self.assertEqual(
            self.problems(environ={"NITROPROXY_EGRESS_ALLOW": ""}),
            ("egress.allow: expected a list of strings, got '' (from env NITROPROXY_EGRESS_ALLOW)",),
        )
        self.assertEqual(self.load(environ={"NITROPROXY_EGRESS_ALLOW": "[]"}).settings.egress.allow, ())

    def test_other_variables(self) -> None:
        """Variables of other programs are ignored."""
        self.assertEqual(self.load(environ={"PATH": "/bin", "ENCLAVE_CIDS": "x"}).settings, Settings())

    def test_unknown_key_has_no_source(self) -> None:
        """Asking for the source of what is no key is a mistake."""
        self.assertRaises(KeyError, self.load().source_of, "host_proxy.prot")

    def test_rows(self) -> None:
        """Each key is listed with its value as JSON and its source, DEBUG_MODE too."""
        found = self.load(environ={"HOST_PROXY_PORT": "8081", "DEBUG_MODE": "0"})
        rows = list(found.rows())
        self.assertIn(("host_proxy.port", "8081", "env HOST_PROXY_PORT"), rows)
        self.assertIn(("egress.allow", '["*:443"]', "default"), rows)
        self.assertIn(("tls.ca_file", "null", "default"), rows)
        self.assertIn(("DEBUG_MODE", "false", "env DEBUG_MODE"), rows)
        self.assertEqual(len(rows), sum(map(len, msgspec.to_builtins(Settings()).values())) + 1)

    def test_unusual_rows(self) -> None:
        """Those whose value is not the default, wherever that comes from: a value that only repeats it is usual."""
        found = self.load(environ={"HOST_PROXY_PORT": "8081", "ENCLAVE_CID": "16", "DEBUG_MODE": "true"})
        expected = [
            ("host_proxy.port", "8081", "env HOST_PROXY_PORT"),
            ("logging.level", '"DEBUG"', "env DEBUG_MODE"),
            ("DEBUG_MODE", "true", "env DEBUG_MODE"),
        ]
        self.assertEqual(list(found.unusual_rows()), expected)


class PathTests(LoadCase):
    """Which file is read."""

    def test_default_place(self) -> None:
        """The file in the default place is read if there is one."""
        self.patch(load_module, "DEFAULT_PATH", self.file({"enclave": {"cid": 20}}))
        found = self.load()
        self.assertEqual(found.settings.enclave.cid, 20)
        self.assertEqual(found.path, load_module.DEFAULT_PATH)

    def test_variable(self) -> None:
        """NITROPROXY_CONFIG names a file in place of the default one, and what is passed goes before both."""
        self.patch(load_module, "DEFAULT_PATH", self.file({"enclave": {"cid": 20}}))
        environ = {"NITROPROXY_CONFIG": self.file({"enclave": {"cid": 21}})}
        self.assertEqual(self.load(environ=environ).settings.enclave.cid, 21)
        self.assertEqual(self.load(self.file({}), environ=environ).settings.enclave.cid, 16)

    def test_missing(self) -> None:
        """A file that was asked for has to be there; that it is not is one line."""
        path = self.mktemp()
        expected = (f"{path}: cannot be read: No such file or directory",)
        self.assertEqual(self.problems(path), expected)
        self.assertEqual(self.problems(environ={"NITROPROXY_CONFIG": path}), expected)


class DebugModeTests(LoadCase):
    """DEBUG_MODE."""

    def test_values(self) -> None:
        """true and 1 turn it on, false and 0 off, in any case."""
        for text, mode in (("true", True), ("TRUE", True), ("1", True), ("false", False), ("0", False)):
            self.assertIs(self.load(environ={"DEBUG_MODE": text}).debug_mode, mode)

    def test_nonsense(self) -> None:
        """Another value is refused, and not taken as a verdict about unverified certificates."""
        self.assertEqual(
            self.problems(options=["tls.verify_certificates=false"], environ={"DEBUG_MODE": "yes"}),
            ("DEBUG_MODE: expected true or false, got 'yes' (from env DEBUG_MODE)",),
        )

    def test_level(self) -> None:
        """It makes the log level DEBUG, unless a level is given in any other place."""
        on = {"DEBUG_MODE": "true"}
        found = self.load(environ=on)
        self.assertEqual((found.settings.logging.level, found.source_of("logging.level")), ("DEBUG", "env DEBUG_MODE"))
        self.assertEqual(self.load(environ=on | {"LOG_LEVEL": "ERROR"}).settings.logging.level, "ERROR")
        self.assertEqual(
            self.load(self.file({"logging": {"level": "WARN"}}), environ=on).settings.logging.level, "WARN"
        )

    def test_unverified_certificates(self) -> None:
        """Certificates may go unverified only when it is on."""
        path = self.file({"tls": {"verify_certificates": False}})
        reported = f"tls.verify_certificates: expected true, as DEBUG_MODE is not true, got false (from {path})"
        self.assertEqual(self.problems(path), (reported,))
        self.assertEqual(self.problems(path, environ={"DEBUG_MODE": "false"}), (reported,))
        self.assertFalse(self.load(path, environ={"DEBUG_MODE": "true"}).settings.tls.verify_certificates)


class ProblemTests(LoadCase):
    """The errors of configurations that cannot be used."""

    def test_example(self) -> None:
        """A problem names key, expectation, value and source."""
        self.assertEqual(
            self.problems(environ={"HOST_PROXY_PORT": "abc"}),
            ("host_proxy.port: expected an integer 1..65535, got 'abc' (from env HOST_PROXY_PORT)",),
        )

    def test_all_at_once(self) -> None:
        """All that is wrong in all sources is reported at once, also what a source of higher precedence hides."""
        path = self.file(
            {
                "host_proxy": {"port": "8080"},
                "tls": {"verify_certificates": False},
                "egress": {"allow_addresses": ["x/8"]},
            }
        )
        problems = self.problems(
            path,
            ["limits.connections=0", "enclave"],
            {"HOST_PROXY_PORT": "8081", "LOG_LEVEL": "loud", "NITROPROXY_X": "1"},
        )
        self.assertEqual(
            [problem.split(":")[0] for problem in problems],
            [
                "host_proxy.port",
                "egress.allow_addresses",
                "logging.level",
                "NITROPROXY_X",
                "limits.connections",
                "--set",
                "tls.verify_certificates",
            ],
        )

    def test_unreadable_file_and_the_rest(self) -> None:
        """A file that cannot be read does not hide what is wrong elsewhere."""
        path = self.file('{\n  "host_proxy": {"port": }\n}')
        self.assertEqual(
            self.problems(path, ["enclave.cid=x"]),
            (
                f"{path}:2:26: unexpected '}}'",
                "enclave.cid: expected an integer 0..4294967294, got 'x' (from option --set)",
            ),
        )

    def test_unknown_keys(self) -> None:
        """Unknown keys and sections are refused with the name that was probably meant, if there is one like it."""
        path = self.file({"host_proxy": {"prot": 1, "zzz": 1}, "host-proxy": {"port": 1}, "$": 0})
        self.assertEqual(
            self.problems(path, ["egress.alow=x"], {"NITROPROXY_EGRES_ALLOW": "x"}),
            (
                f"host_proxy.prot: unknown key, did you mean port? (from {path})",
                f"host_proxy.zzz: unknown key (from {path})",
                f"'host-proxy': unknown section, did you mean host_proxy? (from {path})",
                f"'$': unknown section (from {path})",
                "NITROPROXY_EGRES_ALLOW: unknown variable, did you mean NITROPROXY_EGRESS_ALLOW? (from env)",
                "egress.alow: unknown key, did you mean egress.allow? (from option --set)",
            ),
        )

    def test_repeated_keys(self) -> None:
        """A key or section that is there twice is refused: readers disagree which one counts."""
        path = self.file('{"tls": {"ca_file": "/a", "ca_file": "/b"}, "tls": {}}')
        self.assertEqual(
            self.problems(path),
            (f"tls.ca_file: given more than once (from {path})", f"tls: given more than once (from {path})"),
        )

    def test_shapes(self) -> None:
        """The file is an object of objects."""
        path = self.file([1])
        self.assertEqual(self.problems(path), (f"{path}: expected an object, got [1]",))
        path = self.file({"tls": None, "enclave": {"cid": {}}})
        self.assertEqual(
            self.problems(path),
            (
                f"tls: expected an object, got null (from {path})",
                f"enclave.cid: expected an integer 0..4294967294, got an object (from {path})",
            ),
        )
        path = self.file("null")
        self.assertEqual(self.problems(path), (f"{path}: expected an object, got null",))

    def test_contradiction_names_its_source(self) -> None:
        """What contradicts another key is reported with the source of the key to change."""
        self.assertEqual(
            self.problems(environ={"NITROPROXY_LOGGING_PORT": "5001"}),
            ("logging.port: expected another port than egress.port, got 5001 (from env NITROPROXY_LOGGING_PORT)",),
        )

    def test_no_contradiction_with_what_is_wrong(self) -> None:
        """A key that is wrong by itself is not reported as contradicting another."""
        self.assertEqual(
            self.problems(options=["egress.port=x", "logging.port=5001"]),
            ("egress.port: expected an integer 1024..4294967294, got 'x' (from option --set)",),
        )


class PublishedTests(LoadCase):
    """The configurations in etc/."""

    def test_config_shows_all_defaults(self) -> None:
        """config.json is valid and has every key, each at its default."""
        path = str(ETC / "config.json")
        self.assertEqual(self.load(path).settings, Settings())
        self.assertEqual(
            json5.loads(Path(path).read_text(encoding="utf-8")), json.loads(json.dumps(msgspec.to_builtins(Settings())))
        )

    def test_local(self) -> None:
        """local.json is valid, needs no vsock and lets both daemons listen on one loopback."""
        settings = self.load(str(ETC / "local.json")).settings
        self.assertEqual(settings.transport.kind, "unix")
        self.assertNotEqual(settings.enclave.proxy_port, settings.host_proxy.port)

    def test_env(self) -> None:
        """All of nitroproxy.env is commented out, and with the comments taken away it is valid."""
        text = (ETC / "nitroproxy.env").read_text(encoding="utf-8")
        self.assertEqual([line for line in text.splitlines() if line and not line.startswith("#")], [])
        environ: dict[str, str] = dict(re.findall(r"(?m)^#([A-Z_]+)=(.+)$", text))
        for variable in (
            "ENCLAVE_CID",
            "ENCLAVE_PORT",
            "HOST_PROXY_PORT",
            "LOG_LEVEL",
            "DEBUG_MODE",
            "NITROPROXY_CONFIG",
        ):
            self.assertIn(variable, environ)
        found = self.load(self.file({}), environ=environ)
        self.assertEqual(found.source_of("egress.deny"), "env NITROPROXY_EGRESS_DENY")

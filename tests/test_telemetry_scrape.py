"""The enclave's metrics as the host reads them."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.record import Record
from nitroproxy.telemetry.lag import ReactorLag
from nitroproxy.telemetry.metrics import ConnectMetrics, HopMetrics, Metrics, Source, TLSMetrics
from nitroproxy.telemetry.scrape import LONGEST, read_metrics

BUILD = b'# TYPE nitroproxy_build_info gauge\nnitroproxy_build_info{version="1"} 1.0\n'
REQUESTS = b"# TYPE nitroproxy_requests_total counter\n"


def told(*sources: Source) -> tuple[list[Metric], bytes]:
    """What an enclave counts, and its text."""
    metrics = Metrics("enclave", "0.1.0.dev1+local")
    metrics.sources += sources
    families = metrics.collect()

    class Registry:
        def collect(self) -> list[Metric]:
            return families

    return families, generate_latest(Registry())


class ReadTests(SynchronousTestCase):
    """Text to families."""

    def test_ours(self) -> None:
        """Every family that a daemon of ours tells is read as it was told."""
        hop, handshakes = HopMetrics("nitroproxy-enclave"), TLSMetrics()
        record = Record(0.0, b"an-id", b"GET")
        record.failed(ProxyError(Kind.DNS_ERROR, "no"), "nitroproxy-relay")
        hop.ended(record, 0.3)
        handshakes.shook_hands(None, False)
        sources = (hop.collect, handshakes.collect, ConnectMetrics("relay").collect, ReactorLag(Clock()).collect)
        families, text = told(*sources)
        read = {family.name: family for family in read_metrics(text)}
        self.assertEqual(set(read), {family.name for family in families})
        for family in families:
            same = read[family.name]
            self.assertEqual((same.type, same.documentation), (family.type, family.documentation))
            for one, other in zip(same.samples, family.samples, strict=True):
                self.assertEqual(one[:3], (other.name, other.labels, other.value))

    def test_none_forgotten(self) -> None:
        """Every metric of the guide is read, but those that only the host tells."""
        guide = (Path(__file__).parent.parent / "docs/operations.md").read_text("utf-8")
        table = guide.partition("\n## Metrics\n")[2].partition("\n## ")[0]
        names = {name for row in re.findall(r"\n\| ([^|]+) \|", table) for name in re.findall(r"`(\w+)`", row)}
        for name in names - {"up", "enclave_log_lines_total", "worker_up", "worker_restarts_total"}:
            kind = "counter" if name.endswith("_total") else "gauge"
            line = f"# TYPE nitroproxy_{name} {kind}\nnitroproxy_{name} 1.0\n".encode()
            read = {sample.name for family in read_metrics(line + BUILD) for sample in family.samples}
            self.assertIn(f"nitroproxy_{name}", read)

    def test_others(self) -> None:
        """Families that are not ours are left out, whatever they look like; what a newer daemon adds does no harm."""
        text = BUILD + b'# TYPE go_threads gauge\ngo_threads{x="y\\n"} 1\n# TYPE nitroproxy_up gauge\nnitroproxy_up 1\n'
        text += b"nonsense{\n# TYPE nitroproxy_requests_total summary\nnitroproxy_requests_total 1\n# EOF\n"
        self.assertEqual([family.name for family in read_metrics(text)], ["nitroproxy_build_info"])

    def test_odd(self) -> None:
        """Labels and values that are not such as ours spoil all of it (S19)."""
        good = b'nitroproxy_requests_total{hop="nitroproxy-enclave",code="2xx"} 1.0\n'
        self.assertEqual(len(read_metrics(BUILD + REQUESTS + good)), 2)
        for sample in (
            b'{hop="a\\nb"} 1',
            b'{hop="a b"} 1',
            b'{hop="\xc3\xbc"} 1',
            b'{hop="\x1b[2J"} 1',
            b'{hop="%b"} 1' % (b"x" * 65),
            b'{HOP="a"} 1',
            b'{%b="a"} 1' % (b"x" * 33),
            b'{hop="a",hop="b"} 1',
            b"{" + b",".join(b'%c="1"' % (97 + i) for i in range(9)) + b"} 1",
            b'{hop="a"} x',
            b'{hop="a"} ' + b"1" * 400,
            b'{hop="a"} 1e5e5',
            b'{hop="a"} 1 1700000000',
            b'{hop="a"}',
            b'{hop="nitroproxy-enclave",code="2xx"} 2',
            b'{hop="a',
        ):
            text = BUILD + REQUESTS + good + b"nitroproxy_requests_total" + sample + b"\n"
            self.assertRaises(ValueError, read_metrics, text)

    def test_not_ours(self) -> None:
        """What another kind of server answers is not taken for an empty daemon."""
        for text in (b"", b"<html>", b"\xff\xfe", REQUESTS):
            self.assertRaises(ValueError, read_metrics, text)

    def test_too_much(self) -> None:
        """Bytes and samples have a limit."""
        self.assertRaises(ValueError, read_metrics, BUILD + b"# " + b"x" * LONGEST)
        many = b"".join(b'nitroproxy_requests_total{hop="h%d"} 1\n' % i for i in range(2000))
        self.assertRaises(ValueError, read_metrics, BUILD + REQUESTS + many)

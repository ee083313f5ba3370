"""The enclave's metrics as the host reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.record import Record
from nitroproxy.telemetry.lag import ReactorLag
from nitroproxy.telemetry.metrics import ConnectMetrics, HopMetrics, Metrics, Source, TLSMetrics, merge
from nitroproxy.telemetry.scrape import longest, read_metrics

BUILD = b'# TYPE nitroproxy_build_info gauge\nnitroproxy_build_info{version="1"} 1.0\n'
REQUESTS = b"# TYPE nitroproxy_requests_total counter\n"


def told(*sources: Source) -> tuple[list[Metric], bytes]:
    """What an enclave counts, and its text."""
    metrics = Metrics("enclave", "0.1.0.dev1+local")
    metrics.sources += sources
    families = metrics.collect()

    return families, generate_latest(registry_of(families))


def registry_of(families: list[Metric]) -> Any:
    """What the encoder asks of a registry."""

    class Registry:
        def collect(self) -> list[Metric]:
            return families

    return Registry()


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
                labels = {label: value for label, value in other.labels.items() if label != "role"}
                self.assertEqual(one[:3], (other.name, labels, other.value))

    def test_none_forgotten(self) -> None:
        """Every metric of the guide is read, but those that only the host tells."""
        guide = (Path(__file__).parent.parent / "docs/operations.md").read_text("utf-8")
        table = guide.partition("\n## Metrics\n")[2].partition("\n## ")[0]
        names = {name for row in re.findall(r"\n\| ([^|]+) \|", table) for name in re.findall(r"`(\w+)`", row)}
        for name in names - {"up", "health", "enclave_log_lines_total"}:
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
            b'{hop="nitroproxy-enclave",code="2xx",role="host"} 2',
            b'{role="enclave",hop="nitroproxy-enclave",code="2xx"} 2',
            b'{hop="a',
        ):
            text = BUILD + REQUESTS + good + b"nitroproxy_requests_total" + sample + b"\n"
            self.assertRaises(ValueError, read_metrics, text)

    def test_labels(self) -> None:
        """A sample with a label that is not ours, or a process or bucket not written as we write it, is left out: a
        scraper could take it for a series that is there already (K7)."""
        for labels, taken in (
            (b'hop="a",worker="1"', True),
            (b'hop="a",worker="64"', True),
            (b'hop="a",worker="supervisor"', True),
            (b'hop="a",worker="65"', False),
            (b'hop="a",worker="0"', False),
            (b'hop="a",worker="01"', False),
            (b'hop="a",worker="boss"', False),
            (b'hop="a",job="prometheus"', False),
            (b'hop="a",instance="x"', False),
            (b'hop="a",le="1.0"', False),
        ):
            text = BUILD + REQUESTS + b"nitroproxy_requests_total{%b} 1\n" % labels
            [_, family] = read_metrics(text)
            self.assertEqual(len(family.samples), int(taken), labels)
        kind = b"# TYPE nitroproxy_request_body_bytes histogram\n"
        for name, labels, taken in (
            (b"bucket", b'le="1.0"', True),
            (b"bucket", b'le="1e+16"', True),
            (b"bucket", b'le="+Inf"', True),
            (b"bucket", b'le="1"', False),
            (b"bucket", b'le="1.00"', False),
            (b"bucket", b'le="inf"', False),
            (b"bucket", b'le="nan"', False),
            (b"bucket", b'le="-inf"', False),
            (b"bucket", b'le=""', False),
            (b"bucket", b'hop="a"', False),
            (b"count", b'le="1.0"', False),
        ):
            text = BUILD + kind + b"nitroproxy_request_body_bytes_%b{%b} 1\n" % (name, labels)
            [_, family] = read_metrics(text)
            self.assertEqual(len(family.samples), int(taken), labels)

    def test_role(self) -> None:
        """The label role is the reader's to give: what the text says there is removed (K7)."""
        [_, family] = read_metrics(BUILD + REQUESTS + b'nitroproxy_requests_total{hop="a",role="host"} 1\n')
        self.assertEqual([sample.labels for sample in family.samples], [{"hop": "a"}])

    def test_not_ours(self) -> None:
        """What another kind of server answers is not taken for an empty daemon."""
        for text in (b"", b"<html>", b"\xff\xfe", REQUESTS):
            self.assertRaises(ValueError, read_metrics, text)

    def test_too_much(self) -> None:
        """Bytes and samples have a limit, which grows with the processes that the enclave is configured to have, and
        the message names that key."""
        for processes, samples in ((1, 2000), (3, 4000)):
            text = BUILD + b"# " + b"x" * (longest(processes) - len(BUILD) - 2)
            read_metrics(text, processes)
            error = self.assertRaises(ValueError, read_metrics, text + b"x", processes)
            self.assertIn("enclave.processes", str(error))
            many = b"".join(b'nitroproxy_requests_total{hop="h%d"} 1\n' % i for i in range(samples - 1))
            read_metrics(BUILD + REQUESTS + many, processes)
            one_more = BUILD + REQUESTS + many + b'nitroproxy_requests_total{hop="x"} 1\n'
            error = self.assertRaises(ValueError, read_metrics, one_more, processes)
            self.assertIn("enclave.processes", str(error))

    def test_many_processes(self) -> None:
        """The metrics of as many processes as can be configured fit, with many series each."""
        families = []
        for number in range(65):
            hop = HopMetrics("nitroproxy-enclave")
            for kind in Kind:
                record = Record(0.0, b"an-id", b"GET")
                record.status = kind.status
                record.failed(ProxyError(kind, "no"), "nitroproxy-relay")
                hop.ended(record, 0.3)
            metrics = Metrics("enclave", "1", number)
            handshakes = TLSMetrics()
            handshakes.shook_hands(None, True)
            metrics.sources += [hop.collect, handshakes.collect, ReactorLag(Clock()).collect]
            families += metrics.collect()
        text = generate_latest(registry_of(merge(families)))
        read = read_metrics(text, 64)
        self.assertEqual(sum(len(family.samples) for family in read), sum(len(one.samples) for one in families))

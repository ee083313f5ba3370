"""What the enclave daemon counts of its attestation: documents, the NSM's time, the age of its certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from nitroproxy.telemetry.metrics import Distribution

#: What a document is for: a certificate, a client's challenge, the application, or KMS.
USES: Final = ("certificate", "challenge", "application", "kms")
#: What became of it: the NSM failed, or too many calls waited for it.
OUTCOMES: Final = ("signed", "failed", "busy")

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class HandshakeMetrics:
    """Counts handshakes with clients from outside."""

    def __init__(self) -> None:
        self._handshakes = Counter({"ok": 0, "failed": 0})

    def shook_hands(self, succeeded: bool) -> None:
        """Count a handshake that is over."""
        self._handshakes["ok" if succeeded else "failed"] += 1

    def collect(self) -> Iterator[Metric]:
        """The family."""
        text = "Handshakes at the attested listener."
        family = CounterMetricFamily("nitroproxy_attested_handshakes", text, labels=["result"])
        for result, count in self._handshakes.items():
            family.add_metric([result], count)
        yield family


class AttestationMetrics:
    """Counts for the process that has the NSM.

    :param certificate_age: gives the age of the certificate in use, in seconds.
    """

    def __init__(self, certificate_age: Callable[[], float]) -> None:
        self._certificate_age = certificate_age
        self._documents = Counter({(use, outcome): 0 for use in USES for outcome in OUTCOMES})
        self._seconds = Distribution(_SECONDS)

    def document(self, use: str, outcome: str) -> None:
        """Count a document that was asked for."""
        self._documents[use, outcome] += 1

    def called(self, seconds: float) -> None:
        """Count a call to the NSM, with the time for which it waited for its turn."""
        self._seconds.add([seconds])

    def collect(self) -> Iterator[Metric]:
        """The families."""
        documents = CounterMetricFamily(
            "nitroproxy_attestation_documents", "Attestation documents asked for.", labels=["use", "outcome"]
        )
        for labels, count in self._documents.items():
            documents.add_metric(labels, count)
        yield documents
        seconds = HistogramMetricFamily("nitroproxy_nsm_seconds", "Calls to the NSM, waiting included.", labels=[])
        self._seconds.into(seconds, [])
        yield seconds
        age = GaugeMetricFamily("nitroproxy_attested_certificate_age_seconds", "Since the NSM signed it.", labels=[])
        age.add_metric([], self._certificate_age())
        yield age

"""Reads the enclave daemon's metrics for the host's page: only its numbers are trusted.

Only families that we export ourselves are taken, of them only samples whose labels are ours, and a text whose samples
would make duplicate series once the host has put its own ``role`` on them is refused as a whole. Time and memory grow
with the length of the text and no faster. Knows nothing of how the text came here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric

from nitroproxy.telemetry.metrics import LABELS

#: Bytes that the text of one process may have, and that each further process may add; the same in samples. Each is
#: several times what a process of ours exports.
_LONGEST: Final = 256 * 1024
_LONGEST_MORE: Final = 128 * 1024
_MOST_SAMPLES: Final = 2000
_MOST_SAMPLES_MORE: Final = 1000
#: The label ``worker`` of a daemon with several processes: `nitroproxy.config.schema` allows 64.
_WORKER: Final = re.compile(r"supervisor|[1-9]|[1-5][0-9]|6[0-4]")
_OURS: Final = frozenset(
    {
        "nitroproxy_build_info",
        "nitroproxy_requests",
        "nitroproxy_requests_in_flight",
        "nitroproxy_request_duration_seconds",
        "nitroproxy_request_body_bytes",
        "nitroproxy_response_body_bytes",
        "nitroproxy_tunnel_duration_seconds",
        "nitroproxy_bytes",
        "nitroproxy_connections",
        "nitroproxy_connections_open",
        "nitroproxy_connections_limit",
        "nitroproxy_connections_refused",
        "nitroproxy_ends",
        "nitroproxy_errors",
        "nitroproxy_policy_denials",
        "nitroproxy_hop_connects",
        "nitroproxy_hop_connect_failures",
        "nitroproxy_tls_handshakes",
        "nitroproxy_attestation_documents",
        "nitroproxy_nsm_seconds",
        "nitroproxy_attested_certificate_age_seconds",
        "nitroproxy_attested_handshakes",
        "nitroproxy_credentials_requests",
        "nitroproxy_dns_questions",
        "nitroproxy_dns_names",
        "nitroproxy_pool_connections",
        "nitroproxy_reactor_lag_seconds",
        "nitroproxy_memory_bytes",
        "nitroproxy_worker_up",
        "nitroproxy_worker_restarts",
        "nitroproxy_log_lines_dropped",
        "nitroproxy_log_lines_not_shipped",
        "nitroproxy_config_last_reload_successful",
        "nitroproxy_config_last_reload_success_timestamp_seconds",
        "process_cpu_seconds",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
    }
)
#: What the names of a family's samples add to its own.
_SUFFIXES: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_TYPE: Final = re.compile(r"# TYPE ([a-z_]{1,80}) (counter|gauge|histogram)")
_HELP: Final = re.compile(r"# HELP ([a-z_]{1,80}) ([ -\[\]-~]{1,200})")
_NAME: Final = re.compile(r"[a-z_]{1,80}(?=[{ ])")
_LABEL: Final = re.compile(r'([a-z_]{1,32})="([0-9A-Za-z_.+-]{0,64})"')
_SAMPLE: Final = re.compile(
    rf"(?P<name>[a-z_]{{1,80}})(?:\{{(?P<labels>(?:{_LABEL.pattern},){{0,7}}{_LABEL.pattern})\}})?"
    r" (?P<value>-?[0-9][0-9.e+-]{0,30}|NaN|[+-]Inf)"
)


#: The samples of one text, each by its name and labels.
_Seen = set[tuple[str, frozenset[tuple[str, str]]]]


def longest(processes: int) -> int:
    """Bytes that the metrics of a daemon of so many processes may have."""
    return _LONGEST + (processes - 1) * _LONGEST_MORE


def read_metrics(body: bytes, processes: int = 1) -> list[Metric]:
    """The families of ours in *body*, which is Prometheus's text format; others are left out, and so are samples with
    labels that are not ours. The label ``role`` is removed: it is the reader's to give.

    :param processes: how many processes the daemon is said to have; the text may be as much longer.
    :raises ValueError: when it is not what a daemon of ours exports: then none of it is to be used.
    """
    most = _MOST_SAMPLES + (processes - 1) * _MOST_SAMPLES_MORE
    if len(body) > longest(processes):
        raise ValueError(f"more than {longest(processes)} bytes for {processes} processes (enclave.processes)")
    families: dict[str, Metric] = {}
    texts: dict[str, str] = {}
    of_sample: dict[str, Metric] = {}
    seen: _Seen = set()
    for line in body.decode("utf-8").split("\n"):
        if help_ := _HELP.fullmatch(line):
            texts[help_[1]] = help_[2]
        elif type_ := _TYPE.fullmatch(line):
            name, kind = type_[1].removesuffix("_total"), type_[2]
            if name in _OURS and name not in families:
                family = families[name] = Metric(name, texts.get(type_[1], ""), kind)
                of_sample.update((name + suffix, family) for suffix in _SUFFIXES[kind])
        elif (name_ := _NAME.match(line)) and name_[0] in of_sample:
            _add_sample(of_sample[name_[0]], line, seen)
            if len(seen) > most:
                raise ValueError(f"more than {most} samples for {processes} processes (enclave.processes)")
    if "nitroproxy_build_info" not in families:
        raise ValueError("no metrics of nitroproxy's")
    return list(families.values())


def _add_sample(family: Metric, line: str, seen: _Seen) -> None:
    """Read the sample in *line* and add it to *family*, unless its labels are not ours.

    :param seen: the samples so far.
    :raises ValueError: when it cannot be read, or has been there before.
    """
    name, labels, value = _read_sample(line)
    if not _are_ours(name, labels):
        return
    key = (name, frozenset(labels.items()))
    if key in seen:
        raise ValueError(f"a sample twice: {line[:80]!r}")
    seen.add(key)
    family.add_sample(name, labels, value)


def _read_sample(line: str) -> tuple[str, dict[str, str], float]:
    sample = _SAMPLE.fullmatch(line)
    if sample is None:
        raise ValueError(f"not a sample such as ours: {line[:80]!r}")
    pairs = list(_labels_of(sample["labels"] or ""))
    labels = dict(pairs)
    if len(labels) != len(pairs):
        raise ValueError(f"a label twice: {line[:80]!r}")
    labels.pop("role", None)
    return sample["name"], labels, float(sample["value"])


def _labels_of(text: str) -> Iterator[tuple[str, str]]:
    return ((label[1], label[2]) for label in _LABEL.finditer(text))


def _are_ours(name: str, labels: Mapping[str, str]) -> bool:
    """Whether a sample has no label but ours, and those that tell processes and buckets apart are written as we write
    them: a scraper takes ``le="1"`` and ``le="1.0"`` for one series."""
    if not labels.keys() - {"le"} <= LABELS or not _WORKER.fullmatch(labels.get("worker", "supervisor")):
        return False
    return _is_bound(labels.get("le", "")) if name.endswith("_bucket") else "le" not in labels


def _is_bound(text: str) -> bool:
    """Whether *text* is a bucket's upper bound as we write it."""
    try:
        bound = float(text)
    except ValueError:
        return False
    return text == ("+Inf" if bound == math.inf else str(bound)) and bound > -math.inf

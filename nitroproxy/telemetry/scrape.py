"""Reads the metrics of another daemon, which is believed in nothing but its numbers.

Only families that we have ourselves are taken, and of them only what is written as we write it; time and memory that
reading takes grow with the length of the text and no faster. Knows nothing of how the text came here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric

#: Bytes that the text may have: many times what a daemon of ours tells.
LONGEST: Final = 256 * 1024
_MOST_SAMPLES: Final = 2000
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
        "nitroproxy_connections_refused",
        "nitroproxy_ends",
        "nitroproxy_errors",
        "nitroproxy_policy_denials",
        "nitroproxy_hop_connects",
        "nitroproxy_hop_connect_failures",
        "nitroproxy_tls_handshakes",
        "nitroproxy_pool_connections",
        "nitroproxy_reactor_lag_seconds",
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


def read_metrics(body: bytes) -> list[Metric]:
    """The families of ours in *body*, which is Prometheus's text format; others are left out.

    :raises ValueError: when it is not what a daemon of ours tells: then none of it is to be used.
    """
    if len(body) > LONGEST:
        raise ValueError(f"more than {LONGEST} bytes")
    families: dict[str, Metric] = {}
    texts: dict[str, str] = {}
    of_sample: dict[str, Metric] = {}
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for line in body.decode("utf-8").split("\n"):
        if help_ := _HELP.fullmatch(line):
            texts[help_[1]] = help_[2]
        elif type_ := _TYPE.fullmatch(line):
            name, kind = type_[1].removesuffix("_total"), type_[2]
            if name in _OURS and name not in families:
                family = families[name] = Metric(name, texts.get(type_[1], ""), kind)
                of_sample.update((name + suffix, family) for suffix in _SUFFIXES[kind])
        elif (name_ := _NAME.match(line)) and name_[0] in of_sample:
            name, labels, value = _read_sample(line)
            key = (name, frozenset(labels.items()))
            if key in seen or len(seen) >= _MOST_SAMPLES:
                raise ValueError(f"a sample twice, or more than {_MOST_SAMPLES} samples: {line[:80]!r}")
            seen.add(key)
            of_sample[name].add_sample(name, labels, value)
    if "nitroproxy_build_info" not in families:
        raise ValueError("no metrics of nitroproxy's")
    return list(families.values())


def _read_sample(line: str) -> tuple[str, dict[str, str], float]:
    sample = _SAMPLE.fullmatch(line)
    if sample is None:
        raise ValueError(f"not a sample such as ours: {line[:80]!r}")
    pairs = list(_labels_of(sample["labels"] or ""))
    labels = dict(pairs)
    if len(labels) != len(pairs):
        raise ValueError(f"a label twice: {line[:80]!r}")
    return sample["name"], labels, float(sample["value"])


def _labels_of(text: str) -> Iterator[tuple[str, str]]:
    return ((label[1], label[2]) for label in _LABEL.finditer(text))

"""The status page: the status document for a person, as one HTML page without a script that reloads itself.

All text that is not this module's own is escaped. Nothing is loaded from anywhere, and the page says so
(Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from nitroproxy.host.status import Daemon, Hop, Room, Status
from nitroproxy.host.status_charts import Values, chart, highest, values_of
from nitroproxy.host.status_style import STYLE
from nitroproxy.host.status_words import WORDS, duration
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.samples import Sample
from nitroproxy.telemetry.states import State

_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
#: For the field Content-Security-Policy.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MARKS: Final = {"pass": "✓", "warn": "!", "fail": "✗", "unknown": "?"}
#: Seconds between two loads, and after which what is shown is called old.
_REFRESH: Final = 10
_OLD: Final = 20.0
#: Characters of a value of the configuration, and of what a layer says of itself.
_LONGEST_VALUE: Final = 400
_LONGEST_OUTPUT: Final = 160
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes for a person."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """A short time for a person, in milliseconds or seconds; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def rate(value: float | None) -> str:
    """A number each second for a person; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def share(value: float | None) -> str:
    """A part as a percentage; a dash for none."""
    if value is None:
        return "–"
    return f"{value * 100:.0f} %" if value in (0, 1) or value >= 0.1 else f"{value * 100:.2g} %"


def _reasons(layers: Sequence[State]) -> Iterator[State]:
    """The layers that fail, then those that warn; not one that only repeats what another has said."""
    said: list[str] = []
    bad = [layer for layer in layers if layer.status in ("fail", "warn")]
    for layer in sorted(bad, key=lambda one: one.status != "fail"):
        if not any(text and layer.output.endswith(text) for text in said):
            said.append(layer.output)
            yield layer


@dataclass(frozen=True)
class Page:
    """The page of one status in one language."""

    status: Status
    language: str
    refresh: bool

    def __str__(self) -> str:
        status, say = self.status, self.say
        badge = f"{say(status.status)} · {say('title')} · {status.machine}"
        again = f'<meta http-equiv="refresh" content="{_REFRESH}">' if self.refresh else ""
        return (
            f'<!doctype html><html lang="{"zh-CN" if self.language == "zh" else "en"}"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{again}'
            f"<title>{escape(badge)}</title><style>{STYLE}</style></head><body>"
            f"{self._header()}{self._sentences()}<main>"
            f'<h2>{say("layers")}</h2><ol class="layers">{"".join(map(self._layer, status.layers))}</ol>'
            f"{self._traffic()}<h2>{say('hops')}</h2>{self._hops()}"
            f"<h2>{say('failures')}</h2>{self._failures()}"
            f'<div class="two-up"><section><h2>{say("room")}</h2>{self._room()}</section>'
            f"<section><h2>{say('configuration')}</h2>{self._configuration()}</section></div></main>"
            f'<footer><a href="/health">health</a> · <a href="/metrics">metrics</a> · '
            f'<a href="/status.json">status.json</a> · {say("refreshed") if self.refresh else say("paused")}</footer>'
            "</body></html>\n"
        )

    def say(self, word: str, **values: str) -> str:
        """A word or sentence of the language, escaped; *values* are put in as they are."""
        return escape(WORDS[self.language][word]).format(**values)

    def _link(self, language: str, refresh: bool) -> str:
        return f"?lang={language}" + ("" if refresh else "&amp;refresh=0")

    def _header(self) -> str:
        status, say = self.status, self.say
        other = "en" if self.language == "zh" else "zh"
        facts = [
            escape(status.machine),
            f"CID {status.cid if status.cid is not None else '–'}",
            *map(self._daemon, status.daemons),
        ]
        facts.append(say("seen", time=time.strftime("%H:%M:%S", time.gmtime(status.time))))
        pause = (
            f'<a href="{self._link(self.language, not self.refresh)}">{say("pause" if self.refresh else "resume")}</a>'
        )
        return (
            f"<header><h1>{say('title')}</h1> {self._badge(status.status)} "
            f'<span class="dim">{" · ".join(facts)}</span><nav>{pause} · '
            f'<a href="{self._link(other, self.refresh)}" lang="{other}" hreflang="{other}">{say("other")}</a>'
            "</nav></header>"
        )

    def _daemon(self, daemon: Daemon) -> str:
        name = self.say(daemon.role)
        if not daemon.up:
            return f"{name} {self.say('down')}"
        since = daemon.since
        # The enclave's clock may differ from this one: what it says of its start is not shown as negative.
        up = self.say("up", time=self._time(max(self.status.time - since, 0.0))) if since is not None else ""
        return f"{name} {escape(daemon.version or '')} {up}".strip()

    def _badge(self, status: str) -> str:
        return f'<span class="{status}">{_MARKS[status]} {self.say(status)}</span>'

    def _time(self, seconds: float) -> str:
        return duration(seconds, self.language)

    def _sentences(self) -> str:
        status, say = self.status, self.say
        found = []
        if status.age > _OLD:
            found.append(("warn", say("stale", age=self._time(status.age))))
        for layer in _reasons(status.layers):
            why = f": {escape(layer.output)}" if layer.output else ""
            found.append((layer.status, f"<b>{escape(layer.layer)}</b> {say('is_' + layer.status)}{why}"))
        found += [("warn", say(f"reload_{one.role}")) for one in status.daemons if one.reloaded is False]
        if not status.layers:
            found.append(("unknown", say("starting")))
        return "".join(f'<p class="say {kind}">{text}</p>' for kind, text in found or [("pass", say("well"))])

    def _layer(self, state: State) -> str:
        before = (
            f"<small>{self.say('before', status=self.say(state.before), time=self._time(state.before_seconds))}</small>"
            if state.before
            else ""
        )
        output = state.output if state.status == "pass" else ""
        shown = output if len(output) <= _LONGEST_OUTPUT else output[:_LONGEST_OUTPUT] + "…"
        return (
            f"<li><b>{escape(state.layer)}</b>{self._badge(state.status)}<small>{self._time(state.seconds)}</small>{before}"
            f"{f'<small>{escape(shown)}</small>' if shown else ''}</li>"
        )

    def _traffic(self) -> str:
        say = self.say
        most = next(
            (one.most for one in self.status.room if (one.what, one.where) == ("connections", "nitroproxy-host")), 0
        )
        tiles = [
            self._tile("rate", lambda one: one.rate, rate),
            self._tile("failed", lambda one: one.failed, share, top=0.01),
            self._tile("slow", lambda one: one.slow, span, also=lambda one: one.median),
            self._tile("connections", lambda one: one.connections, rate, of=most),
        ]
        return (
            f'<h2>{say("traffic")} <span class="dim">'
            f'<span class="legend"><span class="key"></span>{say("legend_gateway")}</span> '
            f'<span class="legend"><span class="key two"></span>{say("legend_enclave")}</span></span></h2>'
            f'<dl class="tiles">{"".join(tiles)}</dl>'
        )

    def _tile(
        self,
        name: str,
        value: Callable[[Sample], float | None],
        show: Callable[[float | None], str],
        *,
        also: Callable[[Sample], float | None] | None = None,
        top: float = 0.0,
        of: float = 0.0,
    ) -> str:
        """One curve.

        :param also: a second value of the gateway's, shown as the half.
        :param top: what the top stands for at least.
        :param of: how much there may be.
        """
        gateway, enclave = (self._values(hop, value) for hop in ("nitroproxy-host", "nitroproxy-enclave"))
        most = highest(gateway, enclave)
        now = [show(line[-1] if line else None) for line in (gateway, enclave)]
        title = self.say(name)
        small = []
        if also is not None:
            latest = self._values("nitroproxy-host", also)
            small.append(self.say("half", value=show(latest[-1] if latest else None)))
        if of:
            small.append(self.say("of", used=now[0], most=show(of)))
        label = self.say("chart", what=title, gateway=now[0], enclave=now[1])
        return (
            f"<div><dt>{title}</dt><dd><span><b>{now[0]}</b> <small>{self.say('legend_gateway')}</small></span>"
            f"<span><b>{now[1]}</b> <small>{self.say('legend_enclave')}</small></span></dd>"
            f'<dd class="axis"><span>{" · ".join(small)}</span><span>{self.say("most", value=show(most))}</span></dd>'
            f'<dd class="plot">{chart(gateway, enclave, max(most, top), label)}</dd>'
            f'<dd class="axis"><span>{self.say("ago")}</span><span>{self.say("now")}</span></dd></div>'
        )

    def _values(self, hop: str, value: Callable[[Sample], float | None]) -> Values:
        return values_of(self.status.samples.get(hop, []), value)

    def _table(self, heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
        """A table that becomes cards on a narrow screen.

        :param heads: the words of the columns, and whether they are text and not numbers.
        :param rows: the cells, each with its class.
        """
        names = [self.say(head) if head in WORDS["en"] else escape(head) for head, _ in heads]
        head = "".join(
            f'<th scope="col"{" class=l" if text else ""}>{name}</th>'
            for name, (_, text) in zip(names, heads, strict=True)
        )
        body = "".join(
            "<tr>"
            + f'<th scope="row">{row[0][0]}</th>'
            + "".join(
                f'<td data-l="{name}"{f" class={kind}" if kind else ""}>{cell}</td>'
                for name, (cell, kind) in zip(names[1:], row[1:], strict=True)
            )
            + "</tr>"
            for row in rows
        )
        table = f'<table class="cards"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="scroll">{table}</div>'

    def _hops(self) -> str:
        heads = [("hop", True), ("requests", False), *((code, False) for code in ("2xx", "3xx", "4xx", "5xx"))]
        heads += [(name, False) for name in ("left", "under_way", "median", "p99", "in", "out", "refused")]
        return self._table(heads, [self._hop(hop) for hop in self.status.hops])

    def _hop(self, hop: Hop) -> list[tuple[str, str]]:
        counts = [hop.requests, *(hop.codes[code] for code in ("2xx", "3xx", "4xx", "5xx", "none")), hop.under_way]
        cells = [self.say(hop.name), *(f"{count:,.0f}" for count in counts), span(hop.median), span(hop.slow)]
        return [(cell, "") for cell in (*cells, size(hop.received), size(hop.sent), f"{hop.refused:,.0f}")]

    def _failures(self) -> str:
        if not self.status.failures:
            return f"<p>{self.say('no_failures')}</p>"
        heads = [
            ("when", True),
            ("error", True),
            ("found_by", True),
            ("destination", True),
            ("times", False),
            ("id", True),
        ]
        table = self._table(heads, [self._failure(failure) for failure in self.status.failures])
        command = "<code>nitroproxy logs --request-id ID</code>"
        return f'{table}<p class="dim">{self.say("follow", command=command)}</p>'

    def _failure(self, failure: Failure) -> list[tuple[str, str]]:
        found_by = self.say(failure.found_by) if failure.found_by in WORDS["en"] else escape(failure.found_by)
        return [
            (self.say("ago_s", time=self._time(failure.seconds)), ""),
            (escape(failure.error), "l"),
            (found_by, "l"),
            (escape(failure.destination) or "–", "w"),
            (f"{failure.count:,}", "n"),
            (f"<code>{escape(failure.request_id)}</code>" if failure.request_id else "–", "l"),
        ]

    def _room(self) -> str:
        rows = "".join(
            f"<tr><th scope=row>{self._where(one)}</th><td>{self._used(one)}</td></tr>" for one in self.status.room
        )
        for daemon in self.status.daemons:
            lost = "–" if daemon.lines_lost is None else f"{daemon.lines_lost:,.0f}"
            rows += f"<tr><th scope=row>{self.say('lines_lost', where=self.say(daemon.role))}</th><td>{lost}</td></tr>"
        return f'<div class="scroll"><table class="room"><tbody>{rows}</tbody></table></div>'

    def _where(self, room: Room) -> str:
        return self.say(f"room_{room.what}", where=self.say(room.where))

    def _used(self, room: Room) -> str:
        show: Callable[[float], str] = {"memory": size, "lag": span}.get(room.what, lambda value: f"{value:,.0f}")
        part = min(room.used / room.most, 1.0)
        meter = f'<meter value="{part:.3f}" high="0.8" max="1">{share(part)}</meter>'
        return f"{meter} {self.say('of', used=show(room.used), most=show(room.most))}"

    def _configuration(self) -> str:
        if not self.status.configuration:
            return f"<p>{self.say('no_configuration')}</p>"
        rows = [
            [
                (f"<code>{escape(key)}</code>", ""),
                (
                    f"<code>{escape(value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + '…')}</code>",
                    "w",
                ),
                (escape(source), "w"),
            ]
            for key, value, source in self.status.configuration
        ]
        table = self._table([("key", True), ("value", True), ("from", True)], rows)
        return f'{table}<p class="dim">{self.say("of_host")}</p>'

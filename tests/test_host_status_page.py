"""The status page: what it shows, and that it stays small and harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.status import Daemon, Room
from nitroproxy.host.status_page import POLICY, Page, rate, share, size, span
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.samples import COUNT, Sample
from nitroproxy.telemetry.states import State
from tests.statuses import ENCLAVE, GATEWAY, healthy

HOSTILE = "<script>alert(1)</script>\"'&{x}"
_VOID = {"meta"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps the names and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag begins."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag without content."""
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        """Text."""
        self.text += data.replace("\\xa0", " ").replace("\xa0", " ")


def read(page: Page) -> Reader:
    """The page, read."""
    reader = Reader()
    reader.feed(str(page))
    assert reader.open == [], reader.open
    return reader


class PageTests(SynchronousTestCase):
    """What is on it."""

    def test_healthy(self) -> None:
        """Everything has its place, in both languages."""
        for language, words in (
            (
                "en",
                ("Every layer is well", "✓ pass", "up 1 d 1 h", "seen 03:04:05 UTC", "220,000,000", "7", "87.5 GiB"),
            ),
            ("zh", ("各层均正常", "✓ 正常", "已运行 1 天 1 小时", "更新于 03:04:05 UTC", "220,000,000", "7")),
        ):
            text = read(Page(healthy(), language, refresh=True)).text
            for word in (*words, "ip-10-0-3-17", "CID 16", "egress.allow", "host-3.example:443", "a" * 32):
                self.assertIn(word, text)

    def test_size(self) -> None:
        """At its fullest it has at most 60 KB, and so has the page in Chinese."""
        layers = [State(layer, "fail", "x" * 512, 1e9, "pass", 1e9) for layer in "abcdefghi"]
        failures = [Failure("x" * 40, ENCLAVE, "x" * 80, 10**9, 1e9, "x" * 64)] * 12
        samples = [Sample(12345.123 / (1 + n % 7), 0.1234, 0.12345, 1.2345, 12345.0) for n in range(COUNT)]
        full = healthy(layers=layers, failures=failures, samples={GATEWAY: samples, ENCLAVE: samples})
        for language in ("en", "zh"):
            self.assertLess(len(str(Page(full, language, refresh=True)).encode()), 60_000)

    def test_bad_layers(self) -> None:
        """What fails is said first, with the reason and since when; no state is shown by colour alone."""
        layers = [
            State("vsock", "fail", "no listener", 65.0, "pass", 7200.0),
            State("egress", "unknown", "", 65.0),
            State("policy", "warn", "differs", 5.0),
        ]
        text = read(Page(healthy(status="fail", layers=layers), "en", refresh=True)).text
        self.assertLess(text.index("vsock fails: no listener"), text.index("policy warns: differs"))
        self.assertIn("before: pass for 2 h 0 min", text)
        for mark in ("✗ FAIL", "! WARN", "? unknown", "1 min 5 s"):
            self.assertIn(mark, text)
        self.assertNotIn("Every layer is well", text)

    def test_same_reason(self) -> None:
        """A reason that two layers have is said once; one that says more is said too."""
        why = "cannot reach the enclave"
        layers = [
            State("vsock", "fail", why, 1.0),
            State("enclave", "fail", f"the enclave does not answer: {why}", 1.0),
            State("egress", "fail", "", 1.0),
        ]
        text = read(Page(healthy(status="fail", layers=layers), "en", refresh=True)).text
        self.assertEqual(text.count(why), 1)
        self.assertIn("egress fails", text)
        layers[1] = State("enclave", "fail", f"the enclave does not answer: {why}; it said: no memory", 1.0)
        text = read(Page(healthy(status="fail", layers=layers), "en", refresh=True)).text
        self.assertIn("it said: no memory", text)

    def test_other_sentences(self) -> None:
        """A failed reload, an old document and a daemon that has just started are said."""
        daemons = [Daemon("host", True, "1", 1.0, False, 0.0), Daemon("enclave", False, None, None, None, None)]
        text = read(Page(healthy(age=75.0, daemons=daemons), "en", refresh=True)).text
        self.assertIn("did not take its new configuration", text)
        self.assertIn("What follows is 1 min 15 s old", text)
        self.assertIn("enclave down", text)
        self.assertIn("log lines lost, enclave–", text)
        empty = healthy(
            status="unknown", layers=[], daemons=[], samples={}, hops=[], failures=[], room=[], configuration=[]
        )
        text = read(Page(empty, "en", refresh=True)).text
        for words in ("has just started", "None since the start.", "have their defaults"):
            self.assertIn(words, text)

    def test_links(self) -> None:
        """It loads itself again unless told not to; each link keeps the other choice."""
        page = str(Page(healthy(), "en", refresh=True))
        self.assertIn('http-equiv="refresh" content="10"', page)
        self.assertIn('href="?lang=en&amp;refresh=0"', page)
        self.assertIn('href="?lang=zh" lang="zh"', page)
        page = str(Page(healthy(), "zh", refresh=False))
        self.assertNotIn("http-equiv", page)
        self.assertIn('href="?lang=zh"', page)
        self.assertIn('href="?lang=en&amp;refresh=0"', page)

    def test_hostile(self) -> None:
        """Text from outside stays text, wherever it stands; there is no script, no form, no style attribute."""
        harmless = read(Page(healthy(), "en", refresh=True))

        poisoned = healthy(
            machine=HOSTILE,
            layers=[State(HOSTILE, "fail", HOSTILE, 1.0, "pass", 1.0), State("b", "pass", HOSTILE, 1.0)],
            daemons=[Daemon("host", True, HOSTILE, 1.0, True, 0.0)],
            failures=[Failure(HOSTILE, HOSTILE, HOSTILE, 1, 1.0, HOSTILE)],
            configuration=[(HOSTILE, HOSTILE, HOSTILE)],
        )
        reader = read(Page(poisoned, "en", refresh=True))
        self.assertLessEqual(reader.tags, harmless.tags)
        self.assertLessEqual(reader.attributes, harmless.attributes)
        self.assertFalse(reader.tags & {"script", "form", "iframe", "img", "link", "object"})
        self.assertNotIn("style", reader.attributes)
        # Title and header; sentence, layers and outputs; failure; key, value and source.
        self.assertEqual(reader.text.count(HOSTILE), 14)

    def test_policy(self) -> None:
        """The policy allows the page's own style by its hash, and nothing else."""
        self.assertRegex(POLICY, r"^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; ")
        self.assertNotIn("unsafe", POLICY)

    def test_full(self) -> None:
        """More than there may be is a full bar; the bar is marked from 80 % on."""
        page = str(Page(healthy(room=[Room("lag", "host", 0.2425, 0.1)]), "en", refresh=True))
        self.assertIn('<meter value="1.000" high="0.8" max="1">100 %</meter> 242 ms of 100 ms', page)


class NumberTests(SynchronousTestCase):
    """Numbers for a person."""

    def test_numbers(self) -> None:
        """Short, with the unit; a dash where there is none."""
        for function, pairs in (
            (size, ((0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 << 20, "300 MiB"), (5 << 50, "5120 TiB"))),
            (
                span,
                (
                    (None, "–"),
                    (0.0, "0 ms"),
                    (0.0004, "0.4 ms"),
                    (0.041, "41 ms"),
                    (0.4234, "423 ms"),
                    (2.456, "2.46 s"),
                ),
            ),
            (rate, ((None, "–"), (0.0, "0"), (0.25, "0.25"), (418.4, "418"), (12345.6, "12,346"))),
            (share, ((None, "–"), (0.0, "0 %"), (1.0, "100 %"), (0.004, "0.4 %"), (0.126, "13 %"))),
        ):
            for value, expected in pairs:
                self.assertEqual(function(value), expected)  # type: ignore[arg-type]

    def test_no_bare_space(self) -> None:
        """The page's texts are the same whatever the number of digits: no number is cut."""
        self.assertIsNone(re.search(r"e\+\d", size(1e15) + rate(1e12)))

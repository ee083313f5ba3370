"""The words of the status page."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import HOPS
from nitroproxy.host.status_words import LANGUAGES, WORDS, duration, wanted

PAGE = (Path(__file__).parent.parent / "nitroproxy/host/status_page.py").read_text("utf-8")


class WordsTests(SynchronousTestCase):
    """Both languages."""

    def test_same(self) -> None:
        """Each word is there in both languages, with the same places for values."""
        english, chinese = (WORDS[language] for language in LANGUAGES)
        self.assertEqual(list(english), list(chinese))
        for word, text in english.items():
            places = [set(re.findall(r"{(\w*)}", each)) for each in (text, chinese[word])]
            self.assertEqual(places[0], places[1], word)

    def test_used(self) -> None:
        """Each word is used."""
        made = {*HOPS, "host", "enclave", "is_fail", "is_warn", "reload_host", "reload_enclave"}
        made |= {f"room_{what}" for what in ("connections", "descriptors", "memory", "lag")}
        made |= {"pass", "warn", "fail", "unknown"}
        for word in set(WORDS["en"]) - made:
            self.assertIn(f'"{word}"', PAGE.replace("'", '"'), word)

    def test_duration(self) -> None:
        """The two largest units, which do not part at the end of a line."""
        for seconds, english, chinese in (
            (-1, "0 s", "0 秒"),
            (9.9, "9 s", "9 秒"),
            (60, "1 min 0 s", "1 分钟 0 秒"),
            (11520, "3 h 12 min", "3 小时 12 分钟"),
            (532800, "6 d 4 h", "6 天 4 小时"),
        ):
            found = [duration(seconds, language) for language in LANGUAGES]
            self.assertEqual([text.replace("\xa0", " ") for text in found], [english, chinese])
            self.assertNotIn(" ", "".join(found))

    def test_wanted(self) -> None:
        """The parameter, or else what the browser prefers of the two, or else English."""
        for given, accept, expected in (
            ("zh", "en", "zh"),
            ("en", "zh", "en"),
            ("xx", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
            ("", "en-US,en;q=0.9,zh-CN;q=0.8", "en"),
            ("", "de, zh-TW;q=0.3", "zh"),
            ("", "zh;q=0", "en"),
            ("", "zh;q=nonsense, en;q=0.1", "en"),
            ("", "zh;q=nan", "en"),
            ("", "ZH", "zh"),
            ("", "", "en"),
            ("", "," * 10000, "en"),
            ("", "\ufffd;;=;q", "en"),
        ):
            self.assertEqual(wanted(given, accept), expected, (given, accept[:40]))

"""The style sheet of the status page."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.status_page import Page
from nitroproxy.host.status_style import STYLE
from tests.statuses import healthy


def luminance(colour: str) -> float:
    """WCAG 2.2: relative luminance."""
    digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class StyleTests(SynchronousTestCase):
    """Colours and classes."""

    def test_contrast(self) -> None:
        """Text has a contrast of 4.5 to 1 at least to what is behind it, on light and dark screens (WCAG 2.2, AA)."""
        light, dark = (dict(re.findall(r"--(\w+):#(\w+)", part)) for part in STYLE.split("@media(prefers")[:2])
        self.assertEqual(set(light), set(dark))
        for colours in (light, dark):
            for text, behind in (
                ("fg", "bg"),
                ("fg", "card"),
                ("dim", "bg"),
                ("dim", "card"),
                ("good", "goodbg"),
                ("warn", "warnbg"),
                ("bad", "badbg"),
                ("ink", "bg"),
            ):
                one, other = sorted((luminance(colours[text]), luminance(colours[behind])))
                self.assertGreaterEqual((other + 0.05) / (one + 0.05), 4.5, (text, behind))

    def test_classes(self) -> None:
        """Each class of the page has a style."""
        page = str(Page(healthy(), "en", refresh=True))
        body = page.partition("</style>")[2]
        used = {
            name for names in re.findall(r"class=(?:\"([^\"]*)\"|(\w+))", body) for one in names for name in one.split()
        }
        self.assertEqual({name for name in used if f".{name}" not in STYLE}, set())

    def test_loads_nothing(self) -> None:
        """The style loads nothing."""
        self.assertNotRegex(STYLE, r"url\(|@import")

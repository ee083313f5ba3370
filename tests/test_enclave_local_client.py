"""Tests of `nitroproxy.enclave.local_client`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from nitroproxy.enclave.local_client import check_direct
from nitroproxy.errors import Kind, ProxyError


def refused(**fields: str) -> bool:
    """Whether a request with these fields is refused; an underscore in a name is a hyphen."""
    request: Any = DummyRequest([b""])
    for name, value in {"host": "127.0.0.1:8080", **fields}.items():
        request.requestHeaders.addRawHeader(name.replace("_", "-").encode(), value.encode())
    try:
        check_direct(request)
    except ProxyError as error:
        assert error.kind is Kind.PAGE_DENIED
        return True
    return False


class DirectTests(SynchronousTestCase):
    """Who asks directly."""

    def test_sdks(self) -> None:
        """What SDKs and curl send is answered."""
        self.assertFalse(refused())
        self.assertFalse(refused(user_agent="Boto3/1.42", accept="application/json", accept_encoding="identity"))
        self.assertFalse(refused(authorization="token", connection="keep-alive", te="trailers", content_length="3"))

    def test_browsers_and_proxies(self) -> None:
        """Each field that a browser or a proxy adds is enough, however it is written and whatever it says."""
        for name in (
            *("Origin", "Referer", "Sec-Fetch-Site", "sec-fetch-mode", "Sec-Fetch-Dest", "Sec-CH-UA", "Service-Worker"),
            *("X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO", "Forwarded", "Via", "X-Real-IP"),
            *("Proxy-Connection", "Proxy-Authorization"),
        ):
            for value in ("", "null", "127.0.0.1", "http://127.0.0.1:8080"):
                self.assertTrue(refused(**{name: value}), name)

    def test_hosts(self) -> None:
        """The host is the loopback by number or as localhost: any other name may be a page's own (DNS rebinding)."""
        for host in ("127.0.0.1", "127.0.0.1:8080", "127.3.2.1", "[::1]:8080", "[::1]", "localhost", "LOCALHOST:8080"):
            self.assertFalse(refused(host=host), host)
        for host in (
            *("", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:8080"),
            *(
                "169.254.169.254",
                "0.0.0.0:8080",
                "10.0.0.1",
                "[::]",
                "2130706433",
                "0x7f.1",
                "127.1",
                "::ffff:127.0.0.1x",
            ),
        ):
            self.assertTrue(refused(host=host), host)

"""Keys whose values are valid one by one but not together."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.contradictions import contradictions
from nitroproxy.config.ends import Enclave, EnclaveForward, HostProxy, Transparent, Transport
from nitroproxy.config.schema import Attestation, Credentials, Logging, Settings
from nitroproxy.config.traffic import Egress, Ingress, IngressForward, Tls, UpstreamProxy


class ContradictionTests(SynchronousTestCase):
    """Keys that do not go together."""

    def first_keys(self, settings: Settings, debug_mode: bool = False) -> list[str]:
        """The keys to change."""
        return [contradiction.keys[0] for contradiction in contradictions(settings, debug_mode)]

    def test_defaults(self) -> None:
        """The defaults contradict nothing."""
        self.assertEqual(self.first_keys(Settings()), [])

    def test_verification(self) -> None:
        """Certificates may go unverified in debug mode only."""
        settings = Settings(tls=Tls(verify_certificates=False))
        self.assertEqual(self.first_keys(settings), ["tls.verify_certificates"])
        self.assertEqual(self.first_keys(settings, debug_mode=True), [])

    def test_cid(self) -> None:
        """An enclave has a CID of its own, but on one kernel that of the other side; never Nitro's parent's."""
        for cid, parent, right in (
            (4, 3, True),
            (0, 3, True),
            (3, 3, False),
            (2, 3, False),
            (1, 3, False),
            (1, 1, True),
            (2, 2, True),
            (1, 2, False),
        ):
            settings = Settings(enclave=Enclave(cid=cid), transport=Transport(parent_cid=parent))
            self.assertEqual(self.first_keys(settings), [] if right else ["enclave.cid"], (cid, parent))

    def test_ports(self) -> None:
        """The host's two vsock ports differ; a TCP port is another matter."""
        settings = Settings(logging=Logging(port=5001), egress=Egress(port=5001))
        self.assertEqual(self.first_keys(settings), ["logging.port"])
        self.assertEqual(self.first_keys(Settings(host_proxy=HostProxy(port=5001), egress=Egress(port=5001))), [])

    def test_health_port(self) -> None:
        """The health listener has a port of its own, where it has an address in common with the gateway."""
        for interface, health_interface, right in (
            ("127.0.0.1", "127.0.0.1", False),
            ("0.0.0.0", "127.0.0.1", False),
            ("127.0.0.1", "::", False),
            ("127.0.0.1", "192.0.2.1", True),
            ("::1", "127.0.0.1", True),
        ):
            gateway = HostProxy(interface=interface, port=8080, health_interface=health_interface, health_port=8080)
            found = self.first_keys(Settings(host_proxy=gateway))
            self.assertEqual(found, [] if right else ["host_proxy.health_port"], (interface, health_interface))

    def test_forwards(self) -> None:
        """The enclave's forwards have addresses of their own, and nothing from outside leads to them."""
        right = (EnclaveForward("127.0.0.1:5432", "a.example:443"), EnclaveForward("127.0.0.2:5432", "b.example:443"))
        self.assertEqual(self.first_keys(Settings(enclave=Enclave(forwards=right))), [])
        wrong = (
            *right,
            EnclaveForward("127.0.0.1:8080", "a.example:1"),
            EnclaveForward("127.0.0.2:5432", "c.example:1"),
        )
        ingress = Ingress((IngressForward("0.0.0.0:443", 5444, 5432),))
        told = list(contradictions(Settings(enclave=Enclave(forwards=wrong), ingress=ingress), False))
        self.assertEqual(
            [(one.keys[0], one.expected) for one in told],
            [
                ("enclave.forwards", "addresses other than ours, and 127.0.0.1:8080 is enclave.proxy_port"),
                ("enclave.forwards", "an address for each forward, and 127.0.0.2:5432 has two"),
                (
                    "ingress.forwards",
                    "ports of the application, and 5432 is of enclave.forwards: whoever reaches the host would use it "
                    "as the enclave does",
                ),
            ],
        )

    def test_application(self) -> None:
        """The attested listener leads to no forward of the enclave's."""
        settings = Settings(
            enclave=Enclave(forwards=(EnclaveForward("127.0.0.1:5432", "a.example:443"),)),
            ingress=Ingress(application=5432),
            attestation=Attestation(device="/dev/nsm"),
        )
        self.assertEqual(self.first_keys(settings), ["ingress.application"])

    def test_upstream_proxy(self) -> None:
        """The relay does not go out through its own gateway."""
        for url, right in (("http://127.0.0.1:8080", False), ("http://localhost:8080", False), ("http://a:8080", True)):
            settings = Settings(egress=Egress(upstream_proxy=UpstreamProxy(url)))
            self.assertEqual(self.first_keys(settings), [] if right else ["egress.upstream_proxy"], url)

    def test_ingress(self) -> None:
        """Forwards have addresses and vsock ports of their own, and lead to no port of ours: each fault is told."""
        right = (IngressForward("0.0.0.0:443", 5444, 443), IngressForward("127.0.0.1:443", 5445, 443))
        self.assertEqual(self.first_keys(Settings(ingress=Ingress(right))), [])
        wrong = (
            IngressForward("127.0.0.1:8080", 5000, 8080),
            IngressForward("[::1]:443", 5001, 443),
            IngressForward("[0:0::1]:443", 5002, 443),
            IngressForward("0.0.0.0:443", 5002, 443),
        )
        told = [one.expected for one in contradictions(Settings(ingress=Ingress(wrong)), False)]
        self.assertEqual(
            told,
            [
                "vsock ports other than ours, and 5000 is enclave.port",
                "addresses other than ours, and 127.0.0.1:8080 is host_proxy.port",
                "ports of the application, and 8080 is the proxy's own (enclave.proxy_port): whoever reaches the host "
                "would use it as the enclave does",
                "vsock ports other than ours, and 5001 is egress.port",
                "vsock ports other than ours, and 5002 is logging.port",
                "an address for each forward, and [0:0::1]:443 has two",
                "vsock ports other than ours, and 5002 is logging.port",
                "a vsock port for each forward, and 5002 has two",
            ],
        )

    def test_attestation(self) -> None:
        """What belongs to the attested listener needs one; its ports are its own."""
        device = Attestation(device="/dev/nsm")
        attested = Settings(attestation=device, ingress=Ingress(application=8000, client_ca_file="/a", tcp_port=8443))
        self.assertEqual(self.first_keys(attested), [])
        for settings, keys in (
            (Settings(attestation=Attestation(emulated=True)), ["attestation.emulated"]),
            (Settings(ingress=Ingress(application=8000)), ["ingress.application"]),
            (Settings(ingress=Ingress(client_ca_file="/a")), ["ingress.client_ca_file"]),
            (Settings(attestation=device, ingress=Ingress(application=8000, port=0)), ["ingress.application"]),
            (Settings(attestation=device, ingress=Ingress(application=8080)), ["ingress.application"]),
            (Settings(ingress=Ingress(tcp_port=8443)), []),
            (Settings(ingress=Ingress(tcp_port=8443, port=0)), ["ingress.tcp_port"]),
            (Settings(ingress=Ingress(tcp_port=8080)), ["ingress.tcp_port"]),
            (Settings(ingress=Ingress(port=5000)), ["ingress.port"]),
            (Settings(ingress=Ingress((IngressForward("0.0.0.0:443", 5443, 443),))), ["ingress.forwards"]),
            (Settings(ingress=Ingress((IngressForward("0.0.0.0:1", 5444, 443),), tcp_port=1)), ["ingress.forwards"]),
        ):
            self.assertEqual(self.first_keys(settings), keys, settings)

    def test_socket_path(self) -> None:
        """The directory of UNIX sockets leaves room for their names; with vsock there are none."""
        longest = "/" + "d" * (107 - len("//enclave/5001.sock"))
        for directory, expected in ((longest, []), (longest + "d", ["transport.directory"])):
            self.assertEqual(self.first_keys(Settings(transport=Transport(kind="unix", directory=directory))), expected)
            self.assertEqual(self.first_keys(Settings(transport=Transport(directory=directory))), [])
        longest = "/" + "d" * (107 - len("//vsock.sock_5001"))
        for directory, expected in ((longest, []), (longest + "d", ["transport.directory"])):
            hybrid = Transport(kind="hybrid", directory=directory)
            self.assertEqual(self.first_keys(Settings(transport=hybrid)), expected)

    def test_transparent(self) -> None:
        """Where addresses stand for names, none of them may be dialled; and DNS has its port."""
        on = Enclave(transparent=Transparent(enabled=True))
        for networks, right in (
            (("198.18.0.0/16",), False),
            (("198.16.0.0/12",), False),
            (("fd00::/8",), False),
            (("10.0.0.0/8", "198.20.0.0/16", "fd00:1::/64"), True),
        ):
            settings = Settings(enclave=on, egress=Egress(allow_addresses=networks))
            self.assertEqual(self.first_keys(settings), [] if right else ["egress.allow_addresses"], networks)
            self.assertEqual(self.first_keys(Settings(egress=settings.egress)), [])
        port = Enclave(proxy_port=53, transparent=Transparent(enabled=True))
        self.assertEqual(self.first_keys(Settings(enclave=port)), ["enclave.proxy_port"])
        port = Enclave(proxy_port=53, transparent=Transparent(enabled=True, dns=False))
        self.assertEqual(self.first_keys(Settings(enclave=port)), [])

    def test_credentials(self) -> None:
        """SDKs ask for credentials on the loopback only, where the enclave's proxy must listen."""
        section = Credentials(role="r")
        for interface, port, right in (
            ("127.0.0.1", 8080, True),
            ("::1", 8080, True),
            ("0.0.0.0", 8080, True),
            ("::", 8080, True),
            ("10.0.0.1", 8080, False),
            ("127.0.0.1", 0, False),
        ):
            enclave = Enclave(proxy_interface=interface, proxy_port=port)
            settings = Settings(enclave=enclave, credentials=section)
            self.assertEqual(self.first_keys(settings), [] if right else ["credentials.role"], interface)
            self.assertEqual(self.first_keys(Settings(enclave=enclave)), [])

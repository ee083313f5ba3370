"""nitroproxy: HTTP(S) out of an AWS Nitro Enclave, with the TLS started inside the enclave.

Three proxies in a row, one engine. This is the journey of one request, and the map of the code.

An application on the host says ``GET /https://example.org/x`` to the **gateway** (`host.service` put it together):

1. `proxy.listener` makes a `proxy.downstream` for the application's connection, or refuses it. `http1.reader` turns
   bytes into a `Request`, or refuses them; `proxy.trace` finds or makes the id that names it on every hop.
2. `proxy.downstream` asks its router (`host.gateway`) for a route. `target` parses the request-target once; from here
   on only the parsed form exists. No target: a page of our own (`host.resource`, by way of `proxy.local`). A target:
   `Forward` to the enclave.
3. `proxy.exchange` drives the request. It takes a connection to the enclave from the pool (`proxy.upstream`) or makes
   one over `vsock` (a UNIX socket in development), sends the head in absolute form, and lets the body flow.

In the **enclave** (`enclave.service`) the same engine reads it; only the router differs:

4. `enclave.router` asks `policy` whether the name and port may be reached at all, and forwards to the destination
   itself.
5. `enclave.dialer` makes the connection: `proxy.connect` asks the relay ``CONNECT example.org:443`` over vsock, and
   `tls` starts TLS in that tunnel and verifies the certificate. Before that has succeeded nothing of the request
   leaves.

On the host, the **relay** (`host.service` again) reads the CONNECT with the same engine once more:

6. `host.egress` asks `policy` again, and gives a `Dial` route. `proxy.dialling` carries it out: `host.dial` has
   the name looked up once (`host.lookup`), checks every address, and dials one of those it checked.
7. `proxy.tunnel` joins the two connections: what is read from one is given to the other at once, and while any of it
   waits no more is read. What crosses it is ciphertext.

The response comes back the way the request went: `proxy.upstream` reads it, `proxy.exchange` passes it on,
`proxy.response` writes it. What happened is noted on the way in a `proxy.record`, for those who watch. Each
connection is the other's producer, so a slow reader slows the sender down, all the way. A response that breaks off is
broken off towards the client too, never completed. Every failure is a kind in `errors`, told as `proxy.problem` says.

With ``host_proxy.processes`` several workers do the host's steps. Each accepts from the same sockets (`inherited`),
which a supervisor (`host.crew`) holds; they talk over socket pairs (`host.channel`).

All of it runs in Twisted's reactor, or in one that writes with fewer system calls (`reactor`); `daemon` sees to a
process's life, `listening` to its places.

An application in the enclave enters at step 4 through the enclave's loopback. With CONNECT (`proxy.dialling`
again), or an upgrade answered by 101, the exchange becomes a `proxy.tunnel` on every hop.
"""

__version__ = "0.1.0"

"""nitroproxy: HTTP(S) out of an AWS Nitro Enclave, with the TLS started inside the enclave.

Three proxies in a row share one engine (`proxy`). This is the journey of a request, and the map of the code.

An application on the host sends ``GET /https://example.org/x`` to the **gateway** (`host`):

1. `proxy.listener` accepts the connection and makes a `proxy.downstream` for it, or refuses it: a listener for one
   vsock peer refuses every other CID (`daemon.wiring`). `proxy.head_timeout` bounds the wait for the head.
   `http1.reader` turns bytes into a request or rejects them; `proxy.trace` finds or makes the id that identifies the
   request on every hop.
2. `proxy.dispatch` asks the role's router (`host.gateway`) for a route. `target` parses the request-target once; from
   here on only the parsed form exists. Without a target: a page of our own (`host.pages`, through `proxy.local`).
   With one: forward to the enclave.
3. `proxy.exchange` drives the request, and retries it where that is safe. It takes a connection to the enclave from
   the pool (`proxy.upstream`) or opens one over `vsock` (a UNIX socket in development), sends the head, and streams
   the body.

In the **enclave** (`enclave`) the same engine reads the request; only the router differs:

4. `enclave.router` checks the `policy`: may this name and port be reached? Then it forwards to the destination
   itself.
5. `enclave.dialer` makes the connection: `proxy.connect_endpoint` sends ``CONNECT example.org:443`` to the relay over
   vsock, and `tls.client` starts TLS in that tunnel and verifies the certificate. Nothing of the request leaves
   before that has succeeded.

On the host the **relay** (`host` again) reads the CONNECT with the same engine:

6. `host.egress` checks the `policy` again and returns a route that dials. `proxy.connect_request` carries it out:
   `host.dns` looks the name up once, `host.dial` checks every address with the address guard of `policy` and
   connects to one of those it checked.
7. `proxy.tunnel` joins the two connections. What crosses it is ciphertext.

The other way, a connection from outside reaches the application in the enclave byte by byte: `daemon.ingress` makes a
listener on the host and one in the enclave, whose connections have a destination from the start (`proxy.opening`,
`proxy.passage`; `preface` reads what may come first) and become tunnels like those of a CONNECT. At one of them, the
attested listener, TLS ends in the enclave: `enclave.identity` gives it a key that the hypervisor vouches for,
`tls.server` serves it, and `enclave.ingress` routes what it brings with the same engine.

The response returns along the same path: `proxy.upstream` reads it, `proxy.exchange` passes it on, `proxy.response`
writes it. `proxy.record` notes what happened, for the log (`telemetry.access`) and the metrics (`telemetry.metrics`).
Each connection is the other's producer, so a slow reader slows the sender down, all the way. A response that breaks
off is broken off towards the client too, never completed. Every failure is a kind in `errors`, written by
`proxy.problem`.

A login that counts for a connection (NTLM) pins the connection to its client: `proxy.pinned`. A client that has gone
holds nothing: `sockets.hangup`. An application in the enclave enters at step 4 through the enclave's loopback, or, if
it knows no proxy, by a connection that `transparent` leads there (`proxy.opening`). With CONNECT, or an upgrade
answered by 101, the exchange becomes a tunnel on every hop.

`attestation` verifies what an enclave says it is, `kms` opens what AWS KMS encrypts for an enclave, `image` reads,
builds and measures its images, `credentials` is a daemon that gets the instance role's. Around it: `config`
loads the configuration, `daemon` is the life of a process (`daemon.service`: sockets, signals, watchdog;
`daemon.reload`), `workers` runs a daemon on several processes, `telemetry` is health, metrics and logs, `sockets` and
`vsock` are what lies below the engine. `commands` is the ``nitroproxy`` command, `demo` the demonstration, and `deploy`
takes a build to an instance.
"""

__version__ = "0.1.0"

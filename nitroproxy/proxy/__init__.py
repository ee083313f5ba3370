"""The engine that the gateway, the enclave proxy and the relay share.

A client's side: `listener` makes the connections that it accepts, `opening` is how they begin, with `socks` for those
that may do so in two ways. `places` limits how many are served, `reserve` holds those above the limit, which get pages
of our own only. `downstream` is one of them, `head_timeout` bounds the wait for a request's head, `backpressure` paces
the client in both directions, `response` writes what it is answered, and `closing` ends its connection. `trace`
identifies a request, `record` notes what happened to it, an `observer` is told.

From a request to its answer: `browser` refuses what a browser sends for another site, `route` is what a role decides,
`dispatch` picks what carries the request out: `exchange` forwards it over an `upstream` connection, `connect_request`
dials for a CONNECT and opens a `tunnel`, `passage` routes connections that have one destination, `local` answers with a
page of our own. `states` holds the transitions of an exchange as data, `progress` applies them and its timeouts,
`silence` applies those of a tunnel. `pinned` keeps connections that a login has tied to one client, `connect_endpoint`
leads through another hop, `fetch` asks another hop for something small. `failures` converts and logs what fails,
`problem` writes failures as problem documents, `proxy_status` reads what other hops say of theirs, `location` leads
redirects back through the proxy.

Shared by these: `interfaces` between the parts, their `settings`, `deadlines`, and `transport`, what is required of a
connection. Nothing here knows a socket's family, the configuration, the host or the enclave.
"""

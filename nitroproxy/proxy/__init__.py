"""The engine that the gateway, the enclave proxy and the relay share.

`downstream` is a client's connection and `upstream` one to the next hop; `exchange` joins them for one request,
`tunnel` for good, `local` answers a request ourselves. `route` is what a role decides. `connect` leads through
another hop, `fetch` asks one something small, `problem` tells of failures, `deadlines` keeps time, `transport` says
what is asked of a connection. Nothing here knows a socket's family, the configuration, the host or the enclave.
"""

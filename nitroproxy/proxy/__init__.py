"""The engine that the gateway, the enclave proxy and the relay share.

`listener` makes the clients' connections, `downstream` is one of them, `response` its writing half, `headwait` how long
it is waited for, `pace` how fast it reads and is read, and `ending` how it ends; `upstream` is a connection to the next
hop. `listening` says what listener and connection know of each other. `route` is what a role decides, and `carrier`
finds one of three to carry it out, for which the connection is a `client`: `exchange` joins the two connections for one
request, `dialling` opens a `tunnel` that joins them for good, `local` answers a request ourselves. `connect` leads
through another hop, `fetch` asks one something small, `problem` tells of failures, `record` of what happened, `trace`
names it, `deadlines` keeps time, `transport` says what is asked of a connection. Nothing here knows a socket's family,
the configuration, the host or the enclave.
"""

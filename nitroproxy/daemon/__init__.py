"""A daemon process, on the host or in the enclave: its life and what surrounds it.

`service` is the process's life from listening to exit status, and decides when the watchdog is fed; `place` is a
listening socket with its connections; `reload` decides what SIGHUP may change (each daemon's components put it in
force); `systemd` writes the messages to the service manager, the watchdog's among them; `signals` are those that it
takes or ignores, `descriptors` the limit on open files, `reactor` the reactor that the daemons run on. `wiring` turns
the configuration into endpoints, limits and timeouts, and checks a peer's CID; `ingress` makes the listeners for what
comes from outside; `enclave_record` says which enclave runs. `role` says what a daemon is made of,
`alone` is the composition root of a daemon that is one process; for several see `nitroproxy.workers`.
"""

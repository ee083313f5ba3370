"""A daemon process, on the host or in the enclave: its life and what surrounds it.

`service` is the process's life from listening to exit status, `place` a listening socket with its connections, `reload`
what SIGHUP does, `systemd` the messages to the service manager, `signals` those that it takes or ignores, `descriptors`
the limit on open files, `reactor` the reactor that the daemons run on, and `wiring` turns the configuration into
endpoints and settings. `role` says what a daemon is made of, `alone` is the composition root of a daemon that is one
process; for several see `nitroproxy.workers`.
"""

"""A daemon process, whatever it serves: its life and what surrounds it.

`service` is the process's life from listening to exit status, `place` a listening socket with its connections,
`reload` what SIGHUP does, `systemd` the messages to the service manager, `reactor` the reactor that the daemons run
on, and `wiring` turns the configuration into endpoints and settings for the composition roots.
"""

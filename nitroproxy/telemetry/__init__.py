"""What the daemons say about themselves.

Over HTTP: `health`, and `metrics`, which `exposition` serves, with those of the other daemon that `scrape` reads; `lag`
measures the reactor's. On their output: `logs` makes lines of events, among them those of `access`, and `sink` writes
them; `shipping` sends the enclave's to the host. `instruments` puts it together for one daemon.
"""

"""Applications that know no proxy, in a network namespace like an enclave's: through enclave-init, enclave daemon and
relay to real servers (`scripts/dev.sh transparent`, `transparent-test`).

`stack` is all of it: `outside` the host's namespace with the destinations, `inside` the enclave's. `servers` are the
real ones, `table` their clients, `trials` what many names, many connections and killed daemons do, with `client`; it
also compares what connections cost.
"""

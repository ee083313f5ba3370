"""What the daemons report about themselves.

Over HTTP: `health` documents, and `metrics` with nearly all names (a part may bring its own), which `exposition`
serves together with those that `scrape` reads from the other daemon; `packing` carries them between the processes of
one daemon; `attestation` counts what the enclave attests. `lag` measures the reactor's lag, `memory` what the enclave
has left. `states` remembers since when each layer is as it is, `samples` the last quarter of an hour, `failures` the
latest failures. Log lines: `logs` formats events, `access` logs each exchange, `sink` writes lines to the output and
`shipping` sends the enclave's to the host. `instruments` assembles all of it for one process.
"""

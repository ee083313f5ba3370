"""What the daemons report about themselves.

Over HTTP: `health` documents, and `metrics`, which `exposition` serves together with those that `scrape` reads from
another process; `totals` adds up those of several workers. `lag` measures the reactor's. Log lines: `logs` formats
events, `access` logs each exchange, `sink` writes lines to the output and `shipping` sends the enclave's to the host.
`instruments` assembles all of it for one process.
"""

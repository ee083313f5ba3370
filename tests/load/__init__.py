"""Load and faults against the real daemons, as processes: what only they show.

`stack` starts them, `upstream` is where requests go, `client` makes them and judges the answers, `faults` sits between
two hops and breaks things. Each function in `stages` is one trial with a verdict; `soak` is the long one. All but the
daemons is asyncio and h11: an implementation of HTTP that is not the one under test.

`python -m tests.load STAGE…` runs them at full size (`scripts/dev.sh load`, `scripts/dev.sh soak`); `test_load` runs
them small.
"""

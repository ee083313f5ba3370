"""One daemon, on the host or in the enclave, on several processes: a supervisor that holds the listening sockets, and
workers that accept from them.

`start` chooses the composition root of a process: `supervisor_daemon` or `worker_daemon` (or
`nitroproxy.daemon.alone`). The `supervisor` has one `worker_process` for each worker, which starts, watches and
replaces it; a `shared_place` is its view of a socket at which they accept. `spawn` starts a process; `worker` is the
other end: what it is given at the start and what it answers. The two talk over a socket pair (`channel`).
`shared_socket` accepts from a listening socket that several processes share, and `balance` decides whether to leave the
next connection to another process.
"""

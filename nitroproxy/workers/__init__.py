"""One daemon on several processes: a supervisor that holds the listening sockets, and workers that accept from them.

`supervisor` starts the workers, watches and restarts them; `worker` answers it in each of them; they talk over a
socket pair (`channel`). `spawn` starts a worker process. `shared_socket` accepts from a listening socket that several
processes share, and `balance` decides whether to leave the next connection to another process.
"""

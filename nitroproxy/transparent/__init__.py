"""Applications that know no proxy: they look a name up and connect, and every connection comes here.

`ranges` are the addresses that stand for names, `names` remembers which one stands for which, in a file that outlives
the daemon. `answers` decides what a question of the DNS is answered, `dns_server` asks it, for UDP and TCP, and
`dns_metrics` counts. An accepted connection's `destination` is asked of the kernel; the engine takes it from there, as
if the client had sent a CONNECT (`nitroproxy.proxy.opening`). `examination` looks whether all of it works, for the
health page.

`network` makes an enclave's network so that every connection comes here; the enclave's init does that, as root, with
`netlink` for addresses and routes. Nothing here knows the configuration or the host.
"""

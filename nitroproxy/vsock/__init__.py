"""AF_VSOCK for Twisted: `address` is a peer's name, `transport` the sockets, `endpoints` what the rest uses, `attempt`
what connects for it.

Twisted's TCP classes do nearly all of it; `transport` overrides what AF_VSOCK does otherwise, each with its reason.
Knows Twisted and nothing of nitroproxy.
"""

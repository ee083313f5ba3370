"""AF_VSOCK for Twisted: `address` is a peer's name, `transport` the sockets, `endpoints` the endpoints and their
strings, `attempt` one attempt to connect.

Twisted's TCP classes do nearly all of it; the transport overrides what AF_VSOCK does differently, each with its
reason. Knows Twisted and nothing of nitroproxy.
"""

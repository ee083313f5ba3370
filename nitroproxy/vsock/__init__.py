"""AF_VSOCK for Twisted: `address` is a peer's name with the range of CIDs and ports, `transport` the sockets,
`endpoints` the endpoints and their strings, `attempt` one attempt to connect. `hybrid` is vsock as Firecracker offers
it to the host, without AF_VSOCK.

Twisted's TCP classes do nearly all of it; the transport overrides what AF_VSOCK does differently, each with its
reason. Knows Twisted and nothing of nitroproxy.
"""

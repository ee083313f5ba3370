"""What the kernel knows and does about a connection, below Twisted's transports and whatever the socket's family.

`options` sets those of TCP; `listening` tells whether a port is listened on; `hangup` tells a peer that has gone from
one that has ended its direction; `sealing` ends a listening socket without resetting connections in its queue; `spare`
keeps descriptors back for accepting when there are no others; `quick` has transports with fewer system calls. Knows
Twisted and nothing of nitroproxy.
"""

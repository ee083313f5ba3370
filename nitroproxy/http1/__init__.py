"""HTTP/1.1 messages and bytes, each way (RFC 9112). Pure: no Twisted, no sockets, no clock.

`messages` holds heads as values, `reader` turns bytes into heads and pieces of body, `framing` reads the fields that
decide where a message ends, `faults` names what is wrong with a head that is refused, `chunked` is the transfer coding,
`headers` the rules for what a proxy passes on, `writer` turns heads back into bytes.
"""

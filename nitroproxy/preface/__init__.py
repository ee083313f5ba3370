"""What a client, or a proxy before us, says first on a connection that is not HTTP: pure readers of bytes.

`proxy_protocol` is the header by which a proxy names the client that it speaks for, read and written; `socks5` is the
beginning of a SOCKS connection.
"""

"""TLS towards destinations. It fails closed: any doubt about a certificate ends the connection before a byte is sent.

`client` makes the connections, from `settings`: with the trust `anchors`, the client certificates of `identities` and
OpenSSL's `contexts` made of both. `handshake` is one connection until its application's protocol takes over; `sessions`
resumes. `verification` gives the verdict on a certificate: by `names`, `constraints` and `webpki`, and remembers it.
`reasons` puts every refusal into words.

Nothing else imports OpenSSL or service-identity.
"""

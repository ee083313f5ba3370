"""TLS. It fails closed: any doubt about a certificate ends the connection before a byte is sent.

Towards destinations:

`client` makes the connections, from `settings`: with the trust `anchors`, the client certificates of `identities` and
OpenSSL's `contexts` made of both. `handshake` is one connection until its application's protocol takes over; `sessions`
resumes. `verification` gives the verdict on a certificate: by `names`, `constraints` and `webpki`, and remembers it.
`reasons` puts every refusal into words.

With an enclave: `server` is the enclave's side. A client's is `attested_endpoint`, where attestation takes the place of
authorities and names, and `attested`, which makes an HTTP client of it.

Nothing else imports OpenSSL or service-identity.
"""

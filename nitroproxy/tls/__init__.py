"""TLS towards destinations. It fails closed: any doubt about a certificate ends the connection before a byte is sent.

`client` makes the connections. Nothing else imports OpenSSL or service-identity.
"""

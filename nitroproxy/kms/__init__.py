"""What AWS KMS encrypts for an enclave. Pure: no Twisted, no sockets, no files.

A request to KMS may carry a Recipient: an attestation document with an RSA key in it. KMS then answers with
``CiphertextForRecipient`` and no plaintext, so that only the enclave can read what KMS sent, whoever has the
credentials of the request and whoever carries it. `recipient` is the key, and what such a request says; `envelope`
reads the answer, a CMS EnvelopedData.
"""

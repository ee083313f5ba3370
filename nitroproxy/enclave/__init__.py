"""The enclave's side: the proxy whose TLS starts here."""

"""The enclave daemon: the proxy whose TLS starts inside the enclave.

`service` is its composition root. `router` decides where a request goes, `dialer` connects to a destination through
the relay and starts TLS, `nsm` asks the Nitro Security Module and `nsm_device` is its device, `health` examines the
relay and what lies beyond it.
"""

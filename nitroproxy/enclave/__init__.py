"""The enclave daemon: the proxy whose TLS starts inside the enclave.

`service` is its plugin, `components` what the composition roots run, and `once` what the daemon has once. `router`
decides where a request goes, `dialer` connects to a destination through the relay and starts TLS, `forwards` are the
ports that lead to one destination each, `application` connects to the application's ports. `health` examines the relay
and what lies beyond it, `shipped_log` takes the log to the host.

To attest, the daemon passes the `gates` at its start and has an `identity` from then on. `attestor` holds that and the
Nitro Security Module, which `nsm` asks and `nsm_device` talks to; `pages` ask the attestor. `ingress` routes what
comes from outside to the attested listener. Applications in the enclave get from `kms` what opens answers of AWS KMS,
from `credentials` the instance role's; `local_client` judges who asks.

`init_root` is the composition root of the enclave's entry point: it joins `init`, which decides what runs, with
`init_children`, which starts, reads and reaps processes, `init_activation`, by which the daemon gets sockets that init
holds, `init_output`, which makes lines of what they print, `init_notify`, by which the daemon tells that it is ready,
`init_clock`, which keeps the clock by the hypervisor's (`ptp`), and `init_system`, which brings up the loopback and
looks up users and programs.
"""

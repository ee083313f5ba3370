"""The host daemon: the gateway for applications on the host, and the relay that is the enclave's way out.

`service` is its plugin and `components` what the composition roots run. The gateway: `gateway` routes to the enclave,
`pages` are its own pages. The relay: `egress` checks the policy, `dns` looks names up, `lookup` shares and bounds
the lookups, `dial` checks the addresses and connects, `upstream_proxy` leads through another proxy, `own_addresses`
lists this machine's; `credentials` passes the role's credentials on.

`once` is what there is once, however many processes there are: `log_intake` takes the enclave's log, `enclave_end`
keeps what that says of the enclave's end, and `monitor` looks at the whole stack again and again and makes the `status`
document. `status_resource` serves that: as it is, and as a `status_page` with `status_words`, `status_charts` and
`status_style`.
"""

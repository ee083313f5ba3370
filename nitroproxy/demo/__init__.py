"""The demonstration: requests through a running proxy, checked, timed and reported.

`main` runs it; `cases` are the requests, `client` sends them, `runner` runs them one after the other, `results` holds
the outcome; `report_text`, `report_files` and `report_html` show it, the last with the charts of `report_charts`.
`refusals` are the cases that a proxy must refuse. `upstream` is a separate program for development: httpbin behind TLS
on this machine (`upstream_site`), with listeners whose certificates must be refused (`certificates`); it announces its
addresses in a file (`upstream_file`).

Nothing here is part of a daemon, and no daemon imports it.
"""

"""The demonstration: requests through a running proxy, checked, timed and reported.

`main` is the command line; `cases` is what is tried, `client` how a request is sent, `runner` the order of events,
`results` what came of it, and `report_text`, `report_files` and `report_html` how that is shown. `upstream` is a
separate, development-only program: httpbin behind TLS on this machine, with listeners whose certificates must be
refused (`certificates`, `upstream_site`); it announces itself to the demonstration through `upstream_file`.

Nothing here is part of a daemon, and no daemon imports it.
"""

"""The demonstration: requests through a running proxy, checked, timed and reported.

`main` is the command line; `cases` are the requests, `client` sends them, `runner` puts them in order, `results`
holds the outcome, `report_text`, `report_files` and `report_html` show it. `upstream` is a separate program for
development: httpbin behind TLS on this machine, with listeners whose certificates must be refused (`certificates`,
`upstream_site`); it announces its addresses in a file (`upstream_file`). `refusals` knows what each of those
listeners shows.

Nothing here is part of a daemon, and no daemon imports it.
"""

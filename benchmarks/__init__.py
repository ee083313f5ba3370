"""Compares nitroproxy with other proxies on one machine, in one run: `python -m benchmarks`.

`main` runs `cases`; a case starts `contenders` (`ours`, `peers`, `go_peers`, `forward_peers`, `stock`) and the servers
behind them (`origin`, `raw`) in the background (`processes`), drives them (`wrk`, `clients`, `handshaker`) in
interleaved pairs (`pairs`), and takes CPU time and memory from /proc (`proc`). The results are `figures`; `table`,
`results` and `chart` write them as text, JSON, Markdown and SVG, and `documents` writes those of one run into the
READMEs and docs/performance.md. `profiles` shows where the CPU time goes. Everything runs on loopback.
"""

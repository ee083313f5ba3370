"""Enclave images (EIF): read, measured, built, signed; the `nitroproxy image` command. Never Twisted.

A file's bytes are described by `layout`. `reader` checks a file and measures it (`measurements`), with the signature
that it may have (`signature`); `extract` writes its sections to files; `documents` describes what was found.
`build` makes an image. The root comes from a `directory` or an `archive` of `layers`, whose members are `slices` of one
file, as a `tree`; `cpio` makes a ramdisk of it; `kernel` finds what boots it; `writer` puts the sections together, and
`output` gives the file its name when it is whole. `memory` computes what an enclave needs to run it. Input that cannot
be used is an error of `errors`.
"""

"""The configuration: one file, the environment and the command line, checked as a whole before anything starts.

`schema` defines the keys and their rules: `ends` those about the two ends, `traffic` those about what passes between
them, `kinds` what a value may be. `contradictions` says which values exclude each other, `values` reads
and checks a value by them, `jsonc` reads the file, `load` merges the sources, and `options` is the command line of
the two daemons. Only the composition roots and the commands import this package. All modules but `options` are pure.
"""

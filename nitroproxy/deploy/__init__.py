"""deploy.sh: takes what ``scripts/build.sh artifacts`` made to an instance, upgrades it, goes back, removes it.

It runs from the wheel with nothing but Python's standard library, before anything is installed: every module imports
only that, and each other. What needs the packages (the configuration, the image) is imported after `artifacts` has
unpacked the wheels.

`main` is the command line, `deployment` the order of the steps. First the checks, which change nothing: `instance`
examines the system and its devices, `image` the enclave's image, `resources` memory, processors and ports, with
`allocator` for the file of the allocator, `artifacts` the digests. Then the changes, each of which can be undone
(`changes`): `environment` installs the wheels, `install` puts units, configuration and image in place, `start` starts
the units and waits until requests would be served. `state` is what is deployed and what was before; `remove` takes
everything away again. `machine` is the instance as the others see it, `failure` what can go wrong.
"""

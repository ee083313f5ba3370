"""An emulated Nitro enclave: QEMU boots the enclave image in software, and everything around it is played here.

`vhost_user` is the back end of a virtio device in user space, `loop` what it runs in; `vswitch` is a vsock device made
of it, `nsm` a Nitro Secure Module that signs, with keys of `authority`. `qemu` finds the emulator, `enclave` starts and
ends an enclave with all of them, `derive` adds an application to an image, and `clients` programs that know no proxy.
`stage_eif` tests with this machine as the `parent`; for a VM as the parent the `hypervisor` does what it cannot do.
`run` is for people.
No privilege is needed, no /dev/kvm and no AF_VSOCK on this machine.
"""

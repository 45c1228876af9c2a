"""What a VM is: its definition, where it is kept, its media, and the QEMU arguments that follow from it."""

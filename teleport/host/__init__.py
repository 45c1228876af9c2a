"""This machine: QEMU processes, QMP, guest RAM, the journal's file, the owner record's folder."""

"""Who owns the guest: the source's and the target's state machine, as tables. Pure."""

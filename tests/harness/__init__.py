"""What the tests, the benches and deploy/demo share: the guest, outside-in listeners, bare QEMUs, homes. Standard library only."""

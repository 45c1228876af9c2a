"""The display: the extension interface, the RDP front, the relay."""

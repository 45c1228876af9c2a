"""The default extension: RDP, as any viewer expects it (a front of ours, a private xrdp behind it, the relay behind that)."""

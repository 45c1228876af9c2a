"""VirtualBox's command grammar."""

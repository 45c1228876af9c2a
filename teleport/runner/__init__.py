"""One process per VM: the guardian, and the agent that wires the rooms together."""

"""What the daemons say about themselves: `health` over HTTP, `logs` on their output."""

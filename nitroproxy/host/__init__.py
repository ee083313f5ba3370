"""The host's side: the gateway, its pages, and the egress relay."""

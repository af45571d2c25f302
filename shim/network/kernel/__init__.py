"""The kernel's side: netlink, namespaces, taps, bpf(2)."""

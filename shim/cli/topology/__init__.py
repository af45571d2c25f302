"""`unikernel-shim topology`: a pod's network drawn, in the terminal and as SVG. Clients of the JSON alone."""

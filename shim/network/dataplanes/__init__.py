"""The ways to join a pod's interface and a guest's tap, one file each. Pure."""

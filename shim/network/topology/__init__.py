"""A pod's network as it is: read from the kernel, and held against the plan by which it was plumbed.

`reading` asks the kernel, `seen` has what it says, `chains` orders that into what leads from the guest to its router,
`faults` names what is not as planned, and `assembling` is all of it. Only `reading` touches anything.
"""

"""A pod's network, handed to a guest: `layout` reads, `plan` decides, `apply` carries out and takes back.

`addressing` decides what a guest is told, `dataplanes` how it is joined, `operations` are the steps, `programs` run at
a NIC's edge, `kernel` is netlink and its kin, `checking` proves that it holds; `pod` is the door to it all. Nothing
here knows containers or guests.
"""

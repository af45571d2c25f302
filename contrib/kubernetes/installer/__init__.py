"""Puts the runtime on a node of a cluster, and takes it off again, from a pod that has the node's root at /host.

    node            the node's files below its root, and programs run in it
    registration    how containerd is told of the runtime: a pure decision
    steps           what is changed on the node, each change with its inverse
    record          which changes were made, on the node's disk before they are made
    sequence        install, remove and status: in which order
    label           the node's label, by the cluster's API

Each imports only what is above it. It is run by the interpreter of the installation that it carries, and shares with
that the error model, and what doctor knows of containerd's configuration: its versions and its tables.
"""

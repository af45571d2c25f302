"""What a pod's network costs: plumbing beside ip(8)'s, and a guest's packets beside a bare veth's. Judges nothing."""

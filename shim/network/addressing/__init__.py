"""What a guest is told of an interface, decided from what is there. Pure."""

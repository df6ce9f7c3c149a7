"""Values between processes of one host: slots of shared memory, small messages over Unix sockets."""

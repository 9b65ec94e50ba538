"""What survives kill -9: a harness that kills processes and servers, and small programs that use only the kit."""

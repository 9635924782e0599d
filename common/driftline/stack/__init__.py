"""A whole deployment on this machine: Redis and the services as child processes."""

"""Models at work for the explorer, in a child process: requests and answers, the child, and the server's end of it."""

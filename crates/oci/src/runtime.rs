//! Sandboxes and containers. [`Runtime`] starts one shim process per sandbox and talks to it over a Unix socket;
//! the shim forks the containers, keeps their mounts, logs and exit codes, and goes on when its starter dies.

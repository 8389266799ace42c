"""Video and files: probe, transcode, package, live, storage. Its first room is built with live rooms."""

"""What the end-to-end tests stand on: throw-away clusters, S3 servers, a proxy that breaks things."""

"""What the tests share: clips, servers, clients, commands."""

"""People's access over HTTP, a module for each group of resources. Each write is one service."""

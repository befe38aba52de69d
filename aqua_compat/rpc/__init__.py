"""Services on peers: serves them, calls them, and chooses among those registered on a resource."""

"""Services on peers: serving them, calling them, choosing among those registered on a resource."""

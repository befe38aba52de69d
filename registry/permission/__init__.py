"""Who may register on a resource, by its owner's policy: pure rules, which replicas, hosts and readers share."""

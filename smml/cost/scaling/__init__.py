"""How many machines, when: arrivals, queues, autoscaling policies, right-sizing, crossover between services."""

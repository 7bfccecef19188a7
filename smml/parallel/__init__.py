"""MANY DEVICES: workers that stay up, collectives, links, sharding, and one parallel strategy a file."""

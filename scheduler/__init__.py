"""What runs where and when: pure functions of the graph, the devices and the events."""

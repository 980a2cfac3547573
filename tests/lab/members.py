"""What clusters of ours and of etcd's have in common."""


class Members:
    """Members in their order, in `nodes`."""

    nodes: list

    def __getitem__(self, index):
        return self.nodes[index]

    def __iter__(self):
        return iter(self.nodes)

    def __len__(self):
        return len(self.nodes)

    def start(self):
        for node in self.nodes:
            node.start()
        return self

    def targets(self):
        """Host and port of every member's /metrics."""
        return [node.target for node in self.nodes]

"""The paper's experiments and its open questions, each by one command."""

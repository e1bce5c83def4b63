"""A grid of heads at the price of one: `grammar` says which, `heads` trains them at once, `search` is a run of them."""

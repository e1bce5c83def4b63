"""What frozen layers compute is computed once: `feature_cache.FeatureCache`, and what it is made of.

plan            of the places to cut a network at, which one, and where the rows go: pure
planner         the places that each phase of a run has
networks        the two halves of a network; the first one folded, compiled and named by its content
segments        rows, and the files they lie in
store           rows by key and number, in memory and in files, within a budget
reader          batches of rows in place of batches of images
feature_cache   the four together, for the phases of a run
"""

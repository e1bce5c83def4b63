"""The feature cache: the output of the frozen prefix of a model is computed once per image, and only the suffix is trained.

split_point     chooses the layer after which a model is split, and the storage of its features; no model, no data
planner         the possible split points of each phase of a run
split_model     the two halves of a model; the prefix folded, compiled and hashed
shards          blocks of features in memory or in files with a checksum
store           features by key and id, in memory and on disk, within a budget
reader          batches of features in place of batches of images
feature_cache   all of this for the phases of a run
"""

"""Plans a run on someone's own folder: inspects the images, and chooses the settings of `train` that fit them, the machine and a budget.

inspection.py looks at the data, near_duplicates.py and label_errors.py at the features, plan.py chooses.
"""

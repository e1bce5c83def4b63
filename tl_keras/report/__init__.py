"""Reports: tables, figures and a page, made from the results of finished runs alone. No TensorFlow; Matplotlib loads when it draws.

results = load_experiment(Path("runs/part_a/experiment.json"))
print_table(results)
write_report(results, Path("runs/part_a"))
"""

from tl_keras.report.collection import EXPERIMENT_FILE, Estimate, ExperimentResults, Row, Run, collect, load_experiment
from tl_keras.report.page import write_report
from tl_keras.report.tables import print_result, print_table

__all__ = [
    "EXPERIMENT_FILE",
    "Estimate",
    "ExperimentResults",
    "Row",
    "Run",
    "collect",
    "load_experiment",
    "print_result",
    "print_table",
    "write_report",
]

"""Reports: tables, figures and a page, made from the directories of finished runs alone. No TensorFlow.

results = load_experiment(Path("runs/part_a/experiment.json"))
print_table(results)
write_report(results, Path("runs/part_a"))
"""

from tl_keras.report.combined import write_reports
from tl_keras.report.experiment_results import Estimate, ExperimentResults, Row, Run
from tl_keras.report.load import EXPERIMENT_FILE, collect, load_experiment
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
    "write_reports",
]

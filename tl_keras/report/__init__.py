"""Reports: tables, plots and pages, made only from the directories of finished runs. No TensorFlow.

results = load_experiment(Path("runs/part_a/experiment.json"))
print_table(results)
write_report(results, Path("runs/part_a"))
"""

from tl_keras.report.combined import write_reports
from tl_keras.report.experiment_results import Estimate, ExperimentResults, Run, TableRow
from tl_keras.report.load import load_experiment
from tl_keras.report.page import write_report
from tl_keras.report.tables import describe_result, print_table
from tl_keras.results.experiment_file import EXPERIMENT_FILE

__all__ = [
    "EXPERIMENT_FILE",
    "Estimate",
    "ExperimentResults",
    "Run",
    "TableRow",
    "describe_result",
    "load_experiment",
    "print_table",
    "write_report",
    "write_reports",
]

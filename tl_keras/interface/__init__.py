"""The Python interface: labelled images in, a run out, and what is done with a run.

    image_data    ImageData: labelled images with class names and splits
    fitting       fit, dry_run, lr_find, build_model
    run           Run: a run directory; load_run opens one
    evaluation    Evaluation: the scores of a test set
    comparison    compare, Comparison: paired tests between runs
    tables        list_available: the names that settings accept
    settings      the settings by name, for editors and type checkers

`tl_keras` has the public names. The command line calls nothing else. Importing this package loads no TensorFlow.
"""

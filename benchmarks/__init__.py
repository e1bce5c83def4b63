"""Compares the speed of this package with a plain PyTorch script and a plain Keras script, in one process, in turns.

    work         the work of all sides: model, images, phases, sizes
    arrays       the images
    plain_torch  a script like those of the source reports
    plain_keras  a script like the Keras guide
    ours         the same work through tl_keras
    heads        many heads at once, and one head
    startup      time of a fresh process to its first step
    hardware     description of the machine, and its peak throughput
    step_profile where the time of a step goes, by kind of operation; also a command
    measure      rounds, medians, spreads, memory
    registry     all benchmarks, their sizes and targets
    table        output to the terminal and to benchmarks/results/

`python -m benchmarks --profile=quick`
"""

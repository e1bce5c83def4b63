"""Speed beside what a user would otherwise run: a plain PyTorch script and a plain Keras script, in one process, by turns.

    work         what all sides do: network, images, phases, sizes
    arrays       the images they do it on
    plain_torch  as the reports' scripts have it
    plain_keras  as the Keras guide has it
    ours         through tl_keras
    heads        many heads at once, and one
    startup      how long a fresh process takes to its first step
    machine      what it runs on, and its peak
    measure      turns, medians, spreads, memory
    rows         the table of rows, their sizes and targets
    table        for the terminal, and for benchmarks/results/

`python -m benchmarks --profile=quick`
"""

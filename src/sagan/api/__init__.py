"""What `import sagan` has on top of the other rooms: training, evaluation and runs, as a notebook wants them."""

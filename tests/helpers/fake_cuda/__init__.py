"""Training on a GPU that is not there: device 'cuda' in a CPU build of PyTorch, its tensors without memory.

What runs on it meets the devices, dtypes, memory formats and convolution kernels that a GPU would bring; no values, no
times. `fake_gpu` (run.py) runs a test on it, in a process of its own; `FakeGPU` (gpu.py) records what happens there.

    @fake_gpu
    def test_one_step_never_waits_for_the_device():
        with FakeGPU() as gpu:
            ...
        assert not gpu.reads
"""

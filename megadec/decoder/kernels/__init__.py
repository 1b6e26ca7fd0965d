"""The operations between the matrix products of a decoder, each as one pass over memory.

In and out: tensors as in the plain formula that stands beside each operation. Which of three ways computes them is
decided where they are called, by `model.execution.kernels` and by the tensors (`choose.module_for`):

| way     | where                                                                  |
|---------|------------------------------------------------------------------------|
| Triton  | on a GPU where triton is installed                                     |
| torch   | everywhere else: gradients written by hand, computed a piece at a time |
| formula | under torch.compile, which fuses the plain formula by itself           |

What to call: `norm.rms_norm`, `norm.stream_norm`, `rotary.rotate_pair`, `rotary.norm_rotate`, `swiglu.swiglu`; modules
take `kernels` in their constructor and hand it on. Gradients written by hand keep less and convert less than autograd
would, and cannot be differentiated twice.
"""

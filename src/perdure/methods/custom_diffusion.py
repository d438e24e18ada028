"""Custom Diffusion, sequential: the keys and values themselves, trained on and on.

W_t = W_init + dW,   dW dense, continues from the task before
"""

from perdure.methods.sequential import SequentialFull


class CustomDiffusion(SequentialFull):
    name = "custom-diffusion"
    title = "Custom Diffusion, sequential: the keys and values themselves, trained on and on"
    paper = "Kumari et al., CVPR 2023, arXiv 2212.04488; as a baseline in arXiv 2304.06027"

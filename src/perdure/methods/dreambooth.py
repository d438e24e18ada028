"""DreamBooth, sequential: every linear and convolution weight of the U-Net, trained on and on.

W_t = W_init + dW,   dW dense, continues from the task before
"""

from perdure.methods.sequential import SequentialFull


class DreamBooth(SequentialFull):
    name = "dreambooth"
    title = "DreamBooth, sequential: every linear and convolution of the U-Net, trained on and on"
    paper = "Ruiz et al., CVPR 2023, arXiv 2208.12242; as a baseline in arXiv 2304.06027"
    targets = "all"

"""A bank in ComfyUI: put or link this folder into ComfyUI's `custom_nodes`."""

from .nodes import DrawWithBank, OpenBank

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

NODE_CLASS_MAPPINGS = {"PerdureOpenBank": OpenBank, "PerdureDraw": DrawWithBank}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PerdureOpenBank": "Open a perdure bank",
    "PerdureDraw": "Draw with a perdure bank",
}

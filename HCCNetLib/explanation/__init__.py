"""What a prediction rests on: saliency over voxels. (Attention over exams comes with the prediction itself.)"""

from HCCNetLib.explanation.class_activation import DESCRIPTION, METHOD, ClassActivation, cell_affine

__all__ = ["DESCRIPTION", "METHOD", "ClassActivation", "cell_affine"]

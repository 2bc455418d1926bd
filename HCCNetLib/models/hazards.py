"""Discrete-time hazards and the risks that follow from them.

Time after the landmark is cut into intervals; a network gives the logit of the hazard of each: the probability of a diagnosis
within the interval for a patient who enters it without one (Gensheimer and Narasimhan, PeerJ 2019;7:e6257). The risk up to
the end of interval k is 1 − ∏(1 − hazard) over the intervals 1 to k, so it never falls from one horizon to the next. With one
interval the risk's logit is the network's: that is the published single logit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def risk_logits(hazards: Tensor) -> Tensor:
    """Logits of the hazards (..., K) → logits of the risks up to the end of each interval (..., K).

    Example:
        >>> risk_logits(torch.zeros(1, 2)).sigmoid()  # half are diagnosed in each interval
        tensor([[0.5000, 0.7500]])
    """
    later = _logit_of_event(_minus_log_survival(hazards).cumsum(-1))[..., 1:]
    # The first is the hazard itself, without the detour; rounding must not make a later risk smaller.
    return torch.cat([hazards[..., :1], later], dim=-1).cummax(dim=-1).values


def any_place(hazards: Tensor) -> Tensor:
    """Logits of the hazards at each of P places (B, P, K) → of a diagnosis at any of them (B, K); one place is itself.

    Given no diagnosis before, places are taken as independent: 1 − ∏(1 − hazard).
    """
    return hazards[:, 0] if hazards.shape[1] == 1 else _logit_of_event(_minus_log_survival(hazards).sum(1))


def _minus_log_survival(hazards: Tensor) -> Tensor:
    """softplus, exact for large logits too."""
    return -functional.logsigmoid(-hazards)


def _logit_of_event(survived: Tensor) -> Tensor:
    """The logit of 1 − exp(−survived), of −log of the probability of no event."""
    survived = survived.clamp_min(torch.finfo(survived.dtype).tiny)
    return survived + torch.log(-torch.expm1(-survived))

import torch

from clickvol.mask_decoders.candidates import CandidateHead


def test_candidates_differ_by_their_offset_alone_at_first():
    head = CandidateHead(width=4, count=3)
    torch.nn.init.zeros_(head.classify.weight)
    result = head(torch.randn(2, 4, 3, 3, 3), torch.randn(2, 2, 6, 6, 6), 2)
    assert result.logits.shape == (2, 3, 6, 6, 6)
    assert result.logits[:, :, 1, 2, 3].tolist() == [[-1.0, 0.0, 1.0]] * 2
    assert result.predicted_dice.shape == (2, 4)
    assert ((result.predicted_dice > 0) & (result.predicted_dice < 1)).all()


def test_judging_a_mask_does_not_change_it():
    head = CandidateHead(width=4, count=2)
    joined = torch.randn(1, 4, 3, 3, 3)
    logits = torch.randn(1, 2, 6, 6, 6, requires_grad=True)
    head(joined, logits, 2).predicted_dice.sum().backward()
    assert logits.grad is None
    assert head.classify.weight.grad is None
    assert head.judge[0].weight.grad is not None

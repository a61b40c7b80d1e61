"""The 2020 walkthrough's way, for comparison only: everything padded to 128, dense gradients, batches in the order given."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

POSITIONS = 128


class Linear(nn.Module):
    "Mean over all 128 positions, padding included, and a linear classifier"

    def __init__(self, vocab_size: int, n_classes: int, width: int = 50):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=0)
        self.classifier = nn.Linear(width, n_classes)
        nn.init.uniform_(self.embedding.weight, -1 / width, 1 / width)
        nn.init.zeros_(self.embedding.weight[0])
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids):
        return self.classifier(self.embedding(input_ids).mean(1))


class CNN(nn.Module):
    "Kim 2014 over all 128 positions"

    def __init__(self, vocab_size: int, n_classes: int, width: int = 50, filters: int = 100):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        nn.init.zeros_(self.embedding.weight[0])
        self.convolutions = nn.ModuleList(nn.Conv2d(1, filters, (size, width)) for size in (3, 4, 5))
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(3 * filters, n_classes)

    def forward(self, input_ids):
        h = self.embedding(input_ids).unsqueeze(1)  # (B, 1, 128, W)
        answers = [torch.relu(convolution(h)).squeeze(3) for convolution in self.convolutions]
        answers = [torch.max_pool1d(answer, answer.shape[2]).squeeze(2) for answer in answers]
        return self.classifier(self.dropout(torch.cat(answers, 1)))


def loader(tokens, labels, batch_size: int) -> DataLoader:
    "All texts as one padded tensor, in batches in the order given"
    input_ids, _ = tokens.padded(range(len(tokens)), POSITIONS)
    return DataLoader(TensorDataset(torch.from_numpy(input_ids), torch.from_numpy(labels)), batch_size=batch_size)


def train_epoch(model: nn.Module, data: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    "Cross entropy with the labels"
    model.train()
    for input_ids, labels in data:
        loss = nn.functional.cross_entropy(model(input_ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def predict(model: nn.Module, data: DataLoader) -> torch.Tensor:
    "Logits of all texts"
    model.eval()
    return torch.cat([model(input_ids) for input_ids, _ in data])


@torch.no_grad()
def label(teacher: nn.Module, tokens, batch_size: int = 32) -> torch.Tensor:
    "The teacher's logits, every text padded to 128"
    input_ids, mask = (torch.from_numpy(array) for array in tokens.padded(range(len(tokens)), POSITIONS))
    return torch.cat(
        [teacher(input_ids=ids, attention_mask=m).logits for ids, m in zip(input_ids.split(batch_size), mask.split(batch_size))]
    )

"""The whole homework the plain way, frozen: eager modules, one after the other, a forward pass for every metric.

``python -m benchmarks.plain_homework`` trains the three ConvNets and the 60 text CNNs by the homework's protocol, one
seed, with one smoothness reading after each pass of exercise 1's networks, on the real data, and prints what came out.
Speed is reported relative to this file; it is not to be made faster.
"""

import json
from typing import Any

import spacy
import torch

from benchmarks.plain import PlainConvNet, plain_pass, plain_reading, plain_scores
from benchmarks.plain_text import plain_trial
from hw4.data.images import load_images
from hw4.data.questions import find_trec, load_trec
from hw4.data.vectors import find_spacy_model

PASSES, LEARNING_RATE, BATCH = 10, 0.04, 32
NETWORKS = {"ConvNet": (None, "pool"), "ConvNet + BatchNorm": ("batch", "pool"), "Strided ConvNet": (None, "stride")}


def convnets() -> dict[str, list[list[float]]]:
    """Train loss and accuracy, test loss and accuracy, and smoothness where it is asked for, after every pass."""
    images, found = load_images("fashion-mnist"), dict[str, list[list[float]]]()
    sets = [(images.x_train, images.y_train), (images.x_test, images.y_test)]
    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "batch_size": BATCH}
    for name, (norm, downsample) in NETWORKS.items():
        torch.manual_seed(0)
        model, generator = PlainConvNet(norm, downsample), torch.Generator().manual_seed(0)
        found[name] = []
        for _ in range(PASSES):
            plain_pass(model, *sets[0], generator=generator, **settings)
            row = plain_scores(model, sets)
            if downsample == "pool":
                row.append(plain_reading(model, *sets[0], generator=generator, **settings))
            found[name].append(row)
    return found


def texts() -> dict[int, list[float]]:
    """Ten test accuracies for each stride."""
    root = find_trec()
    assert root is not None, "the real questions are needed"
    nlp = spacy.load(find_spacy_model())
    parts = [
        (torch.tensor([nlp(text).vector for text in questions.texts]).unsqueeze(1), torch.from_numpy(questions.labels))
        for questions in load_trec(root)
    ]
    return {
        stride: [plain_trial(stride, trial, parts[0], parts[1], epochs=50, lr=0.1) for trial in range(10)]
        for stride in (1, 5, 10, 30, 100, 500)
    }


if __name__ == "__main__":
    print(json.dumps({"convnets": convnets(), "texts": texts()}))

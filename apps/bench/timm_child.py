"""Time a network of timm; `peers.Timm` runs this in a Python that has it, needing nothing else of the project."""

import itertools
import statistics
import sys
import time


def main(name, dtype, size, batch_size, steps, what):
    """Print seconds a step for each line that is read."""
    import timm
    import torch

    size, batch_size, steps = int(size), int(batch_size), int(steps)
    model = timm.create_model(name).to(memory_format=torch.channels_last)  # the faster layout on processors
    images = torch.randn(batch_size, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.long)
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9), torch.nn.CrossEntropyLoss()
    model.train(what == "training")

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "mixed_bfloat16"):
            if what == "prediction":
                with torch.no_grad():
                    return model(images).float().sum().item()
            found = loss(model(images), labels)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        return found.item()

    for _ in sys.stdin:
        step()  # what the processor forgot while it waited
        times = [time.perf_counter()]
        for _ in range(steps):
            step()
            times.append(time.perf_counter())
        print(statistics.median(b - a for a, b in itertools.pairwise(times)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

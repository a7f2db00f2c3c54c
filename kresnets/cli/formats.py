"""A run as a file for another runtime, and what int8 costs on the images that judged the run."""

_CALIBRATION = 200  # training images, spread over the classes


def export(run, loaded, path, format, dtype, verify):
    """Write the file that `kresnets export --format` asks for, and print how it compares with the run."""
    if dtype != "float32" or verify:
        given = "--verify" if verify else f"--dtype {dtype}"
        raise ValueError(f"{given} is for --format saved-model; leave it out with {format}.")
    model, labels, preprocessing = loaded
    from kresnets.export import Classifier, export_file

    data = calibration = None
    if format == "litert-int8":
        classifier = Classifier.of(model, labels, preprocessing)
        size, crop = classifier.size, classifier.preprocessing.crop
        data = run.images()
        calibration = data.train.pixels(size, _spread(data.train.labels), crop)
    exported = export_file(model, path, format, labels, preprocessing, calibration)
    print(exported.path, exported.labels, sep="\n")
    if data is None:
        print(
            f"run by its own runtime: within {exported.difference:.1g} of the run's probabilities, on noise and colours"
        )
        return
    print(f"calibrated by {len(calibration)} training images, of which {exported.agreement:.1%} keep their label")
    images = data.test.pixels(size, crop=crop)
    print(_comparison(format, exported.path, classifier, images, data.test))


def _spread(labels):
    """Choose rows to calibrate by: as many of each class as of the others, as far as there are."""
    import numpy as np

    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = np.concatenate([np.arange(len(each)) for each in rows])
    return np.concatenate(rows)[np.argsort(turns, kind="stable")][:_CALIBRATION]


def _comparison(format, path, classifier, images, part):
    """Say how a file and the run that it was made of do on labelled images."""
    import numpy as np

    from kresnets.export import FORMATS
    from kresnets.report.metrics import evaluate

    batches = np.array_split(images, range(32, len(images), 32))
    of_run = np.concatenate([classifier.network(batch)["probabilities"] for batch in batches])
    ask = FORMATS[format].open(path)
    of_file = np.concatenate([ask(np.round(batch)) for batch in batches])
    numbers = [evaluate(part.labels, answers, list(part.class_names)) for answers in (of_run, of_file)]
    differences = [
        f"{name.replace('auc', 'AUC')} {numbers[0][name]:.3f} by the run, {numbers[1][name]:.3f} by the file"
        for name in ("accuracy", "auc")
        if numbers[0].get(name) is not None
    ]
    same = np.mean(of_run.argmax(axis=-1) == of_file.argmax(axis=-1))
    return f"on the {len(images)} test images: {'; '.join(differences)}; the same label for {same:.1%}"

"""A classifier written as a SavedModel: its weights frozen, one network for all signatures."""

import keras
import tensorflow as tf

CONSTANT_BYTES = 1 << 30  # up to here weights are constants; the file that holds them must stay below 2 GB


def save(classifier, folder):
    """Write a SavedModel with all signatures into a folder.

    Args:
        classifier: a `kresnets.export.Classifier`.
        folder: pathlib.Path, an empty folder.
    """
    network = tf.function(frozen(classifier), autograph=False)
    archive = keras.export.ExportArchive()
    signatures = classifier.signatures(network)  # must live on: a tf.function holds its methods weakly
    for name, (function, spec) in signatures.specs().items():
        archive.add_endpoint(name, function, [spec])
    archive.write_out(str(folder), verbose=False)
    if "classify" in signatures.specs():
        _name_method(folder, "classify", "tensorflow/serving/classify")


def frozen(classifier):
    """Return the network of a classifier with its weights as constants, where they are few enough.

    The kernels of a convolution lay out a constant filter once, a variable one at every call. What Keras does not know
    of, such as a tf.Variable in a layer of one's own, stays a variable.
    """
    variables = [(variable, variable.numpy()) for variable in classifier.model.variables]
    if sum(value.nbytes for _, value in variables) > CONSTANT_BYTES:
        return classifier.network

    def network(images):
        with keras.StatelessScope(variables):
            return classifier.network(images)

    return network


def _name_method(folder, signature, method):
    """Say by which of TF Serving's APIs a signature is called; `tf.saved_model.save` knows Predict alone."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name(signature, method, tags="serve")
    updater.save()
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # it is of the file as it was, and no loader needs it
